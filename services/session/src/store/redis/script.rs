//! The scripts. Each is the keys, what they share, and its own part; loaded once, called by hash.

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisResult, ServerErrorKind, Value};
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
    /// Calls it by its hash, and with its text where the server does not know it yet: of a cluster only
    /// the server of the key need know it.
    pub(super) async fn run(
        &self,
        connection: &mut impl ConnectionLike,
        key: &str,
        args: &[Vec<u8>],
    ) -> RedisResult<Value> {
        let call = |verb: &str, code: &str| {
            let mut call = redis::cmd(verb);
            call.arg(code).arg(1).arg(key);
            for arg in args {
                call.arg(arg.as_slice());
            }
            call
        };
        let answer = call("EVALSHA", &self.code.hash).query_async(connection).await;
        match answer {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                call("EVAL", &self.code.text).query_async(connection).await
            }
            answer => answer,
        }
    }
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
pub(super) static TOTALS: Script =
    Script { name: "totals", code: LazyLock::new(|| whole(include_str!("lua/totals.lua"))) };
