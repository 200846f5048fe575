//! A batch of publishes before it is on a wire: an edge keeps each item until it is resolved and shares it
//! with the batch, and a fanout service of the same process takes it as it is.

use crate::fanout::{Place, PublishBatch, PublishItem};
use std::sync::Arc;

/// What a [`PublishBatch`] holds, with items of any kind that is an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<I> {
    /// See `PublishBatch.items`.
    pub items: Vec<I>,
    /// See `PublishBatch.known`.
    pub known: Option<Place>,
}

impl From<PublishBatch> for Batch<PublishItem> {
    fn from(PublishBatch { items, known }: PublishBatch) -> Self {
        Self { items, known }
    }
}

impl From<Batch<Arc<PublishItem>>> for PublishBatch {
    /// Copies what somebody else still holds.
    fn from(batch: Batch<Arc<PublishItem>>) -> Self {
        Self { items: batch.items.into_iter().map(Arc::unwrap_or_clone).collect(), known: batch.known }
    }
}
