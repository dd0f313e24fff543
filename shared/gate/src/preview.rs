//! What a deployment's variables would come to, for those who configure them.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_aws::{applications::TokenGrant, clock, error::StoreError, material::Opening};
use tidegate_domain::{
    deployment::DeployedIn,
    id::{ApplicationId, ProjectId, TenantId},
    invalid::FieldError,
    parameter::{self, Accepted},
    variable::{self, Entry, Origin, Resolution},
};

use crate::Gate;

/// The final set as a deployment would get it now, with all that is wrong with it. What else may keep a deployment back is not
/// looked at: its version, its hosts, and whether its whole work order is too large.
#[derive(Debug)]
pub struct Preview {
    pub environment: Option<DeployedIn>,
    /// By key.
    pub variables: Vec<Previewed>,
    pub faults: Vec<FieldError>,
}

#[derive(Debug)]
pub struct Previewed {
    pub entry: Entry,
    /// The weaker layers that have the key as well, strongest first.
    pub overrides: Vec<Origin>,
}

impl Gate {
    /// `given` is what a request would say. A fault hides nothing but the values that it is about.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for no application.
    pub async fn preview(
        &self,
        tenant: &TenantId,
        (application, project): (ApplicationId, ProjectId),
        given: &BTreeMap<String, Value>,
    ) -> Result<Preview, StoreError> {
        let grant =
            TokenGrant { tenant: tenant.clone(), application_id: application, project_id: project, valid_until: None };
        let material = Box::pin(self.store.material(&grant, None, None, clock::now())).await?;
        let parameters = &material.application.body.application.parameters;
        let (Accepted { values, .. }, mut faults) = parameter::judge(parameters, given);
        let layers = parameter::layers(parameters, values);
        let of_request: Vec<_> = layers.iter().map(|layer| (layer.key.clone(), layer.origin)).collect();
        let configuration = self.store.configuration(&grant, &material, layers, Opening::Judging).await?;
        let Resolution { entries, faults: of_variables } =
            variable::resolve(&configuration.layers, |reference| configuration.secret(reference));
        faults.extend(of_variables);
        let previewed = |entry: Entry| {
            let of_request = of_request.iter().filter(|(key, _)| *key == entry.key).map(|(_, origin)| *origin);
            let mut overrides: Vec<_> =
                of_request.chain(material.layers_of(&entry.key)).filter(|origin| *origin > entry.origin).collect();
            overrides.sort();
            Previewed { entry, overrides }
        };
        let variables = entries.into_iter().map(previewed).collect();
        Ok(Preview { environment: material.deployed_in(), variables, faults })
    }
}
