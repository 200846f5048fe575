//! Every name that two Plaza services share: protobuf types, ids, positions, NATS subjects and
//! error codes. Nothing here does I/O.
//!
//! | module | what it names |
//! |---|---|
//! | [`event`], [`client`], [`fanout`], [`session`] | generated from the `.proto` files beside this crate |
//! | [`batch`] | publishes on their way from an edge to fanout |
//! | [`ids`] | rooms, sessions, users, message ids |
//! | [`position`] | where an event stands in its room |
//! | [`subject`] | NATS subjects and headers |
//! | [`code`] | the one table of error codes |
//! | [`feed`] | what the store distributes to edges |
//! | [`text`] | what a line of text may hold |
//! | [`time`] | the store's times |
//! | [`view`] | stored events, read in place |

mod base64url;
pub mod batch;
pub mod code;
pub mod feed;
pub mod ids;
pub mod position;
pub mod subject;
pub mod text;
pub mod time;
pub mod view;

pub use generated::client::v1 as client;
pub use generated::event::v1 as event;
pub use generated::fanout::v1 as fanout;
pub use generated::session::v1 as session;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files are documented"
)]
mod generated {
    pub mod event {
        pub mod v1 {
            tonic::include_proto!("plaza.event.v1");
        }
    }
    pub mod client {
        pub mod v1 {
            tonic::include_proto!("plaza.client.v1");
        }
    }
    pub mod fanout {
        pub mod v1 {
            tonic::include_proto!("plaza.fanout.v1");
        }
    }
    pub mod session {
        pub mod v1 {
            tonic::include_proto!("plaza.session.v1");
        }
    }
}

/// All descriptors, encoded, for gRPC reflection and for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
