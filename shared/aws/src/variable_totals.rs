//! How many variables each scope has, and how large they are together, counted in the transactions that change them. What no
//! deployment could use any more is refused when it is written, and not at every deployment from then on.
//!
//! Those of an environment stand in its item, which is judged as it is written. A scope that has more than is allowed keeps
//! what it has, and does not grow. Its totals begin with its first change: until they are there nothing of it can change, so
//! that whoever begins them counts what stays.

use std::iter::Sum;

use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::TenantId,
    variable::{MAX_TOTAL_BYTES, MAX_VARIABLES, Scope},
};

use crate::{
    catalogue::Part,
    error::{Result, StoreError},
    keys,
    store::Store,
    table::{Cancelled, item, number, patience, pause},
    variables::StoredVariable,
    write::{Expression, Write, update},
};

/// What a change does to the totals of a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    variables: i64,
    bytes: i64,
}

impl Growth {
    /// Of a variable that takes the other's place.
    pub(crate) fn of(old: Option<&StoredVariable>, new: Option<&StoredVariable>) -> Self {
        let size = |of: Option<&StoredVariable>| {
            let bytes = of.map(|variable| i64::try_from(variable.size_bytes()).unwrap_or(i64::MAX));
            (i64::from(of.is_some()), bytes.unwrap_or_default())
        };
        let ((before, bytes_before), (after, bytes_after)) = (size(old), size(new));
        Self { variables: after - before, bytes: bytes_after - bytes_before }
    }
}

impl Sum for Growth {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            variables: sum.variables + one.variables,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// As stored.
#[derive(Debug, Serialize, Deserialize)]
struct Totals {
    variables: i64,
    bytes: i64,
}

impl Totals {
    fn is_room_for(&self, growth: Growth) -> bool {
        let fits = |now: i64, by: i64, most: usize| by <= 0 || now + by <= i64::try_from(most).unwrap_or(i64::MAX);
        fits(self.variables, growth.variables, MAX_VARIABLES) && fits(self.bytes, growth.bytes, MAX_TOTAL_BYTES)
    }
}

impl Store {
    fn total_write(&self, tenant: &TenantId, scope: Scope, growth: Growth) -> Option<Write<Part>> {
        if matches!(scope, Scope::Environment(_)) || growth == Growth::default() {
            return None;
        }
        let change = Expression::new("ADD #variables :variables, #bytes :bytes")
            .name("#variables", "variables")
            .name("#bytes", "bytes")
            .value(":variables", number(growth.variables))
            .value(":bytes", number(growth.bytes));
        let mut condition = Expression::present();
        let limits = [
            (growth.variables, MAX_VARIABLES, "#variables <= :room", ":room"),
            (growth.bytes, MAX_TOTAL_BYTES, "#bytes <= :byte_room", ":byte_room"),
        ];
        for (by, most, text, placeholder) in limits {
            if by > 0 {
                let room = i64::try_from(most).unwrap_or(i64::MAX) - by;
                condition = Expression { text: format!("{} AND {text}", condition.text), ..condition }
                    .value(placeholder, number(room));
            }
        }
        Some(update(Part::Totals, &keys::variable_totals(tenant, scope), &self.table, change, condition))
    }

    /// As [`crate::table::Table::transact`], of a change that lets its scope grow so.
    ///
    /// # Errors
    /// [`StoreError::TooManyVariables`] if the scope would grow past what a deployment may have.
    pub(crate) async fn transact_counted(
        &self,
        tenant: &TenantId,
        scope: Scope,
        growth: Growth,
        mut writes: Vec<Write<Part>>,
    ) -> Result<(), Cancelled<Part>> {
        writes.extend(self.total_write(tenant, scope, growth));
        let until = patience();
        let mut attempt = 0;
        loop {
            match self.table.transact(writes.clone()).await {
                Err(Cancelled::Conditions(parts)) if parts.iter().all(|part| *part == Part::Totals) => {}
                ended => return ended,
            }
            let totals: Option<Totals> = self
                .table
                .read(&keys::variable_totals(tenant, scope), "total of variables")
                .await
                .map_err(Cancelled::Store)?;
            match totals {
                None => self.begin_totals(tenant, scope).await.map_err(Cancelled::Store)?,
                Some(totals) if totals.is_room_for(growth) => {}
                Some(_) => return Err(Cancelled::Store(StoreError::TooManyVariables)),
            }
            // Somebody else began them, or made room, since.
            pause(&mut attempt, until).await.map_err(Cancelled::Store)?;
        }
    }

    async fn begin_totals(&self, tenant: &TenantId, scope: Scope) -> Result<()> {
        let variables = self.variables(tenant, scope).await?;
        let bytes: usize = variables.iter().map(StoredVariable::size_bytes).sum();
        let totals = Totals {
            variables: i64::try_from(variables.len()).unwrap_or(i64::MAX),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        let totals = item(&keys::variable_totals(tenant, scope), &totals)?;
        // Somebody else may have begun them since; then theirs are the right ones.
        self.table.put(totals, Some(Expression::absent())).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidegate_domain::{
        id::Revision,
        variable::{ValueType, VariableKey},
    };

    use super::*;
    use crate::variables::StoredValue;

    #[test]
    fn only_what_grows_needs_room() {
        let check = |variables: i64, bytes: i64, growth: (i64, i64), fits: bool| {
            let growth = Growth { variables: growth.0, bytes: growth.1 };
            assert_eq!(Totals { variables, bytes }.is_room_for(growth), fits, "{growth:?}");
        };
        let (most, most_bytes) = (i64::try_from(MAX_VARIABLES).unwrap(), i64::try_from(MAX_TOTAL_BYTES).unwrap());
        check(0, 0, (most, most_bytes), true);
        check(most - 1, 0, (1, 0), true);
        check(most, 0, (1, 0), false);
        check(most + 7, 0, (0, 10), true);
        check(most + 7, most_bytes + 7, (-1, -10), true);
        check(0, most_bytes - 5, (1, 6), false);
    }

    #[test]
    fn what_takes_the_place_of_another_adds_the_difference() {
        let variable = |text: &str| StoredVariable {
            key: VariableKey::parse("KEY").unwrap(),
            value_type: ValueType::String,
            value: StoredValue::Plain { text: text.to_owned() },
            revision: Revision(1),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        let (short, long) = (variable("ab"), variable("abcdef"));
        let check = |old: Option<&StoredVariable>, new: Option<&StoredVariable>, variables: i64, bytes: i64| {
            assert_eq!(Growth::of(old, new), Growth { variables, bytes });
        };
        check(None, Some(&short), 1, 5);
        check(Some(&short), Some(&long), 0, 4);
        check(Some(&long), Some(&short), 0, -4);
        check(Some(&long), None, -1, -9);
        let sum: Growth = [Growth::of(None, Some(&short)), Growth::of(Some(&long), Some(&short))].into_iter().sum();
        assert_eq!(sum, Growth { variables: 1, bytes: 1 });
    }
}
