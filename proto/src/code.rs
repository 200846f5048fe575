//! The one table of error codes, used by gRPC, by both client protocols and by `docs/errors.md`.

use tonic::{Code as Grpc, Status};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $grpc:ident, $en:literal, $zh:literal;)+) => {
        /// What went wrong, as clients and backends see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code's text: lower case with underscores, never changed once released.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The gRPC status that carries it.
            pub const fn grpc(self) -> Grpc {
                match self { $(Self::$name => Grpc::$grpc,)+ }
            }

            /// One sentence for people, English, without the full stop.
            pub const fn english(self) -> &'static str {
                match self { $(Self::$name => $en,)+ }
            }

            /// One sentence for people, Chinese, without the full stop.
            pub const fn chinese(self) -> &'static str {
                match self { $(Self::$name => $zh,)+ }
            }

            /// What the code means, for the table in the docs.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }

            /// The code of a text; `None` for a text that is not in the table.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

codes! {
    /// The request is malformed: the message says which field and what would be right.
    BadRequest = "bad_request", InvalidArgument, "the request is not understood", "无法理解该请求";
    /// A room name is not 1 to 64 of `A-Z a-z 0-9 _ . : -`.
    BadRoom = "bad_room", InvalidArgument, "a room name has 1 to 64 letters, digits or _ . : -", "房间名须为 1 到 64 个字母、数字或 _ . : -";
    /// A username is empty, longer than 32 characters, or has characters that are not allowed.
    BadUsername = "bad_username", InvalidArgument, "a name has 1 to 32 visible characters", "用户名须为 1 到 32 个可见字符";
    /// The text is empty or has characters that are not allowed.
    BadText = "bad_text", InvalidArgument, "the message is empty or has characters that are not allowed", "消息为空或含有不允许的字符";
    /// A position is malformed or not of this room's log.
    BadPosition = "bad_position", InvalidArgument, "the position is not known here", "位置无效";
    /// Text above 4,096 bytes, data above 12,288 bytes, or a frame above the limit.
    TooLarge = "too_large", InvalidArgument, "the message is too long", "消息太长";
    /// A username must be set before this.
    UsernameRequired = "username_required", FailedPrecondition, "please set a username first", "请先设置用户名";
    /// Somebody holds this username, or one that looks like it.
    UsernameTaken = "username_taken", AlreadyExists, "this name is taken", "该用户名已被使用";
    /// The session is not in that room.
    NotJoined = "not_joined", FailedPrecondition, "you are not in this room", "您不在该房间";
    /// The session is in 100 rooms already.
    TooManyRooms = "too_many_rooms", ResourceExhausted, "you are in 100 rooms, and no more are allowed", "加入的房间已达上限 100 个";
    /// There is no such session, edge or event.
    NotFound = "not_found", NotFound, "there is no such thing", "不存在";
    /// The token is missing, wrong or expired.
    Unauthenticated = "unauthenticated", Unauthenticated, "please sign in again", "请重新登录";
    /// The user has no right to do this.
    Forbidden = "forbidden", PermissionDenied, "this is not allowed", "没有权限";
    /// More messages than the rate allows: slow down.
    RateLimited = "rate_limited", ResourceExhausted, "you are sending too fast", "发送过快";
    /// Too many requests wait for the store: the same request again after a moment may pass.
    Busy = "busy", ResourceExhausted, "the server is busy, please try again", "服务器繁忙,请稍后再试";
    /// The store has no room left.
    StorageFull = "storage_full", ResourceExhausted, "the store is full", "存储空间已满";
    /// A service that is needed cannot be reached now; the outcome is unknown.
    Unavailable = "unavailable", Unavailable, "the service cannot be reached now, please try again", "服务暂时不可用,请稍后再试";
    /// No answer in time: perhaps it was done. Send again with the same id.
    Timeout = "timeout", DeadlineExceeded, "there was no answer in time, please try again", "超时未得到答复,请重试";
    /// The retry came too late, or into too busy a room, to know whether the first attempt was stored.
    Expired = "expired", Aborted, "it is too late to know whether the message was stored", "重试过晚,无法确认消息是否已保存";
    /// The edge's lease has ended; it registers anew.
    LeaseLost = "lease_lost", FailedPrecondition, "the lease has ended", "租约已失效";
    /// Events asked for are gone from the store.
    Trimmed = "trimmed", OutOfRange, "older messages are no longer kept", "更早的消息已不再保留";
    /// A fault of ours; it is logged.
    Internal = "internal", Internal, "something went wrong on the server", "服务器内部错误";
}

impl Code {
    /// A gRPC status with this code: its message is `code: detail`.
    pub fn status(self, detail: impl std::fmt::Display) -> Status {
        Status::new(self.grpc(), format!("{}: {detail}", self.as_str()))
    }

    /// The code of a gRPC status: the one its message begins with, or else the nearest to the status.
    pub fn of_status(status: &Status) -> Self {
        if let Some(code) = status.message().split(':').next().and_then(Self::parse) {
            return code;
        }
        match status.code() {
            Grpc::InvalidArgument => Self::BadRequest,
            Grpc::NotFound => Self::NotFound,
            Grpc::Unauthenticated => Self::Unauthenticated,
            Grpc::PermissionDenied => Self::Forbidden,
            Grpc::ResourceExhausted => Self::Busy,
            Grpc::DeadlineExceeded => Self::Timeout,
            Grpc::Unavailable | Grpc::Cancelled | Grpc::Unknown => Self::Unavailable,
            Grpc::OutOfRange => Self::Trimmed,
            Grpc::Ok
            | Grpc::AlreadyExists
            | Grpc::FailedPrecondition
            | Grpc::Aborted
            | Grpc::Unimplemented
            | Grpc::Internal
            | Grpc::DataLoss => Self::Internal,
        }
    }

    /// The sentence for people in their language: Chinese for `zh`, else English.
    pub const fn sentence(self, locale: Locale) -> &'static str {
        match locale {
            Locale::Zh => self.chinese(),
            Locale::En => self.english(),
        }
    }
}

/// The language of a client's sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Locale {
    /// Chinese, as in the tutorial: the default on Socket.IO.
    #[default]
    Zh,
    /// English: the default on Plaza's own protocol.
    En,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_grpc_status() {
        for &code in Code::ALL {
            assert_eq!(Code::of_status(&code.status("why")), code);
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }

    #[test]
    fn a_foreign_status_gets_the_nearest_code() {
        assert_eq!(Code::of_status(&Status::unavailable("connection refused")), Code::Unavailable);
        assert_eq!(Code::of_status(&Status::deadline_exceeded("")), Code::Timeout);
    }
}
