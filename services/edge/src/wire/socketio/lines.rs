//! The sentences of the chat, as the tutorial's page shows them.

use plaza_proto::code::Locale;

/// To a client that has come in.
pub const fn welcome(locale: Locale) -> &'static str {
    match locale {
        Locale::Zh => "您已进入聊天室!",
        Locale::En => "You have entered the chat room!",
    }
}

/// To a client whose name is set.
pub fn name_set(locale: Locale, username: &str) -> String {
    match locale {
        Locale::Zh => format!("您的用户名已设置为:{username}"),
        Locale::En => format!("Your username is set to: {username}"),
    }
}

/// To a client whose message was not sent; `reason` without a full stop.
pub fn not_sent(locale: Locale, reason: &str) -> String {
    match locale {
        Locale::Zh => format!("发送消息失败:{reason}。"),
        Locale::En => format!("The message was not sent: {reason}."),
    }
}

/// To a client whose name was not set; `reason` without a full stop.
pub fn name_not_set(locale: Locale, reason: &str) -> String {
    match locale {
        Locale::Zh => format!("设置用户名失败:{reason}。"),
        Locale::En => format!("The username was not set: {reason}."),
    }
}

/// To everyone in the room that a user has left: what follows the name.
pub const fn left(locale: Locale) -> &'static str {
    match locale {
        Locale::Zh => " 已离开聊天室。",
        Locale::En => " has left the chat room.",
    }
}
