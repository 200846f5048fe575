//! A batch of publishes and its results while they are on no wire: an edge keeps each item until it is resolved and
//! shares it with the batch, and a fanout service of the same process takes it as it is and answers in kind.

use crate::code::Code;
use crate::fanout::publish_result::Outcome as Wire;
use crate::fanout::{self, Place, PublishBatch, PublishItem, PublishResult, Rejected, Unknown};
use crate::ids::MessageId;
use crate::position::Position;
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

/// What became of the item with this tag: a [`PublishResult`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemResult {
    /// See `PublishResult.tag`.
    pub tag: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, and acknowledged by the store.
    Stored(Stored),
    /// Distributed, and stored nowhere.
    PassedOn,
    /// Surely not stored.
    Rejected {
        /// Why.
        code: Code,
        /// What was wrong and what would be right.
        message: String,
    },
    /// Perhaps stored: [`Code::Timeout`], [`Code::Unavailable`] or [`Code::Expired`].
    Unknown(Code),
}

/// Where an event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place.
    pub position: Position,
    /// Its id.
    pub id: MessageId,
    /// By an earlier attempt with the same id.
    pub duplicate: bool,
}

impl From<Stored> for fanout::Stored {
    fn from(Stored { position, id, duplicate }: Stored) -> Self {
        Self { position: position.to_string(), seq: position.seq, duplicate, id: id.to_string() }
    }
}

impl From<Outcome> for Wire {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored(stored) => Self::Ok(stored.into()),
            Outcome::PassedOn => Self::Ok(fanout::Stored::default()),
            Outcome::Rejected { code, message } => Self::Rejected(Rejected { code: code.as_str().to_owned(), message }),
            Outcome::Unknown(code) => Self::Unknown(Unknown { code: code.as_str().to_owned() }),
        }
    }
}

impl From<ItemResult> for PublishResult {
    fn from(ItemResult { tag, outcome }: ItemResult) -> Self {
        Self { tag, outcome: Some(outcome.into()) }
    }
}

impl From<PublishResult> for ItemResult {
    /// A code that is not known here is [`Code::Internal`] or [`Code::Unavailable`], and so is what a service says
    /// of a stored event that cannot be read, or nothing.
    fn from(PublishResult { tag, outcome }: PublishResult) -> Self {
        let outcome = match outcome {
            Some(Wire::Ok(stored)) if stored.seq == 0 => Outcome::PassedOn,
            Some(Wire::Ok(stored)) => match (Position::parse(&stored.position), MessageId::parse(&stored.id)) {
                (Ok(position), Some(id)) => Outcome::Stored(Stored { position, id, duplicate: stored.duplicate }),
                _ => Outcome::Rejected { code: Code::Internal, message: Code::Internal.english().to_owned() },
            },
            Some(Wire::Rejected(Rejected { code, message })) => {
                Outcome::Rejected { code: Code::parse(&code).unwrap_or(Code::Internal), message }
            }
            Some(Wire::Unknown(Unknown { code })) => Outcome::Unknown(Code::parse(&code).unwrap_or(Code::Unavailable)),
            None => Outcome::Unknown(Code::Unavailable),
        };
        Self { tag, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Epoch;

    #[test]
    fn results_come_over_a_wire_as_they_were() {
        let stored = Stored {
            position: Position { epoch: Epoch([7; 8]), seq: 12, check: 0x0909_0909 },
            id: MessageId([9; 16]),
            duplicate: true,
        };
        let rejected = Outcome::Rejected { code: Code::TooLarge, message: "too long".to_owned() };
        for outcome in [Outcome::Stored(stored), Outcome::PassedOn, rejected, Outcome::Unknown(Code::Expired)] {
            let result = ItemResult { tag: 3, outcome };
            assert_eq!(ItemResult::from(PublishResult::from(result.clone())), result);
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_nothing_is_unknown() {
        let read = |outcome| ItemResult::from(PublishResult { tag: 1, outcome }).outcome;
        let odd = fanout::Stored { position: "here".to_owned(), seq: 4, ..fanout::Stored::default() };
        assert!(matches!(read(Some(Wire::Ok(odd))), Outcome::Rejected { code: Code::Internal, .. }));
        let new = Rejected { code: "of_the_future".to_owned(), message: "why".to_owned() };
        assert_eq!(
            read(Some(Wire::Rejected(new))),
            Outcome::Rejected { code: Code::Internal, message: "why".to_owned() }
        );
        assert_eq!(read(None), Outcome::Unknown(Code::Unavailable));
    }
}
