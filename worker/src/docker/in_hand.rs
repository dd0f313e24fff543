//! Images that a job of this process is about to make a container of: no cleaning up takes them away.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_domain::image::Digest;

/// Shared by all that work with one connection to the engine.
#[derive(Debug, Clone, Default)]
pub(super) struct InHand(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many jobs have it in hand.
    digests: Mutex<BTreeMap<String, usize>>,
    /// Held while an image is being removed, from the last look at the digests on.
    removing: tokio::sync::Mutex<()>,
}

/// From before the job looks whether the image is there until the job's end.
#[derive(Debug)]
pub struct Hold {
    of: InHand,
    digest: Digest,
}

impl InHand {
    /// Waits for a removal under way: what the engine shows after this stays.
    pub(super) async fn hold(&self, digest: &Digest) -> Hold {
        let _not_now = self.0.removing.lock().await;
        *self.digests().entry(digest.as_str().to_owned()).or_default() += 1;
        Hold { of: self.clone(), digest: digest.clone() }
    }

    /// Removes with nobody taking anything in hand meanwhile. None: one of the references is in hand.
    pub(super) async fn unless_held<T>(&self, references: &[String], remove: impl AsyncFnOnce() -> T) -> Option<T> {
        let _alone = self.0.removing.lock().await;
        let is_held = {
            let held = self.digests();
            references.iter().any(|reference| reference.split_once('@').is_some_and(|(_, of)| held.contains_key(of)))
        };
        if is_held { None } else { Some(remove().await) }
    }

    fn digests(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut digests = self.of.digests();
        if let Some(jobs) = digests.get_mut(self.digest.as_str()) {
            *jobs -= 1;
            if *jobs == 0 {
                digests.remove(self.digest.as_str());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_image_is_kept_until_the_last_job_has_let_it_go() {
        let digest = |c: &str| Digest::parse(&format!("sha256:{}", c.repeat(64))).unwrap();
        let in_hand = InHand::default();
        let listed = [format!("nginx@{}", digest("1")), format!("registry.example.com/a@{}", digest("0"))];
        let goes = async || in_hand.unless_held(&listed, async || ()).await.is_some();
        let first = in_hand.hold(&digest("0")).await;
        let second = in_hand.clone().hold(&digest("0")).await;
        let _other = in_hand.hold(&digest("2")).await;
        assert!(!goes().await);
        drop(first);
        assert!(!goes().await);
        drop(second);
        assert!(goes().await);
        // What is being removed is not taken for there.
        let held = in_hand.unless_held(&listed, async || in_hand.hold(&digest("0")).now_or_never().is_some()).await;
        assert_eq!(held, Some(false));
    }
}
