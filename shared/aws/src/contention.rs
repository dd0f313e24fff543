//! Waiting for others who write the same thing.

use tokio::time::Instant;

use crate::{
    error::Result,
    table::{patience, pause},
};

/// A change that is made again and again on what others have written meanwhile, for five seconds.
#[derive(Debug)]
pub struct Contention {
    attempt: u32,
    until: Instant,
}

impl Contention {
    pub fn begin() -> Self {
        Self { attempt: 0, until: patience() }
    }

    /// Waits with full jitter, longer each time.
    ///
    /// # Errors
    /// [`StoreError::Busy`](crate::error::StoreError::Busy) once the time is over.
    pub async fn pause(&mut self) -> Result<()> {
        pause(&mut self.attempt, self.until).await
    }
}
