//! The scripts. Each is the keys, what they share, and its own part; loaded once, called by hash.

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use std::sync::LazyLock;

/// A script and its name in the metrics.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: &'static str,
    code: LazyLock<Code>,
}

#[derive(Debug)]
struct Code {
    text: String,
    hash: String,
}

const KEYS: &str = include_str!("lua/keys.lua");
const COMMON: &str = include_str!("lua/common.lua");

fn whole(body: &str) -> Code {
    let text = [KEYS, COMMON, body].join("\n");
    let hash = redis::Script::new(&text).get_hash().to_owned();
    Code { text, hash }
}

impl Script {
    /// Calls it by its hash, or with its text, after which the server knows it: of a cluster only the server
    /// of the key need know it.
    ///
    /// # Errors
    /// What the server or the connection said; see [`is_unknown`].
    pub(super) async fn run(
        &self,
        connection: &mut impl ConnectionLike,
        key: &str,
        args: &[Vec<u8>],
        by: By,
    ) -> RedisResult<Value> {
        let mut call = match by {
            By::Hash => redis::cmd("EVALSHA"),
            By::Text => redis::cmd("EVAL"),
        };
        call.arg(match by {
            By::Hash => &self.code.hash,
            By::Text => &self.code.text,
        });
        call.arg(1).arg(key);
        for arg in args {
            call.arg(arg.as_slice());
        }
        call.query_async(connection).await
    }
}

/// How a script is named to the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// It must know the script.
    Hash,
    /// It learns it.
    Text,
}

/// Whether the server does not know the script.
pub(super) fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

pub(super) static REGISTER: Script =
    Script { name: "register", code: LazyLock::new(|| whole(include_str!("lua/register.lua"))) };
pub(super) static HEARTBEAT: Script =
    Script { name: "heartbeat", code: LazyLock::new(|| whole(include_str!("lua/heartbeat.lua"))) };
pub(super) static APPLY: Script =
    Script { name: "apply", code: LazyLock::new(|| whole(include_str!("lua/apply.lua"))) };
pub(super) static FIND_EDGE: Script =
    Script { name: "find_edge", code: LazyLock::new(|| whole(include_str!("lua/find_edge.lua"))) };
pub(super) static GET: Script = Script { name: "get", code: LazyLock::new(|| whole(include_str!("lua/get.lua"))) };
pub(super) static LIST: Script = Script { name: "list", code: LazyLock::new(|| whole(include_str!("lua/list.lua"))) };
pub(super) static MEMBERS: Script =
    Script { name: "members", code: LazyLock::new(|| whole(include_str!("lua/members.lua"))) };
pub(super) static SET_USERNAME: Script =
    Script { name: "set_username", code: LazyLock::new(|| whole(include_str!("lua/set_username.lua"))) };
pub(super) static CLOSE: Script =
    Script { name: "close", code: LazyLock::new(|| whole(include_str!("lua/close.lua"))) };
pub(super) static OUTBOX: Script =
    Script { name: "outbox", code: LazyLock::new(|| whole(include_str!("lua/outbox.lua"))) };
pub(super) static CONFIRM: Script =
    Script { name: "confirm", code: LazyLock::new(|| whole(include_str!("lua/confirm.lua"))) };
pub(super) static REAP: Script = Script { name: "reap", code: LazyLock::new(|| whole(include_str!("lua/reap.lua"))) };
pub(super) static DOUBT: Script =
    Script { name: "doubt", code: LazyLock::new(|| whole(include_str!("lua/doubt.lua"))) };
pub(super) static TOTALS: Script =
    Script { name: "totals", code: LazyLock::new(|| whole(include_str!("lua/totals.lua"))) };
