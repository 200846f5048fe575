//! Packets to the client, each with the type byte of the Engine.IO message around it.

use crate::wire::json::{ObjectWriter, write_integer, write_string};

/// Writes `4`, the packet's type, its attachments, namespace and ack id.
fn header(out: &mut Vec<u8>, kind: u8, attachments: usize, namespace: &str, id: Option<u64>) {
    out.extend_from_slice(&[b'4', b'0' + kind]);
    if kind >= 5 {
        write_integer(out, attachments as u64);
        out.push(b'-');
    }
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
    if let Some(id) = id {
        write_integer(out, id);
    }
}

/// The answer to an accepted CONNECT; `pid` only when recovery is on.
pub fn connect(namespace: &str, sid: &str, pid: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    header(&mut out, 0, 0, namespace, None);
    let mut object = ObjectWriter::new(&mut out);
    object.string("sid", sid);
    if let Some(pid) = pid {
        object.string("pid", pid);
    }
    object.end();
    out
}

/// The answer to a refused CONNECT; `data` is JSON text.
pub fn connect_error(namespace: &str, message: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    header(&mut out, 4, 0, namespace, None);
    let mut object = ObjectWriter::new(&mut out);
    object.string("message", message);
    if let Some(data) = data {
        object.raw("data", data);
    }
    object.end();
    out
}

/// DISCONNECT: the client does not come back by itself.
pub fn disconnect(namespace: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    header(&mut out, 1, 0, namespace, None);
    out
}

/// Writes an EVENT up to its name. Each argument follows behind a comma, then `]`.
pub fn begin_event(out: &mut Vec<u8>, namespace: &str, id: Option<u64>, name: &str) {
    header(out, 2, 0, namespace, id);
    out.push(b'[');
    write_string(out, name);
}

/// An EVENT with arguments as JSON text (`1,"x"`, or nothing) and this many attachments to follow.
pub fn event(namespace: &str, name: &str, arguments: &str, attachments: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + namespace.len() + name.len() + arguments.len());
    header(&mut out, if attachments > 0 { 5 } else { 2 }, attachments, namespace, None);
    out.push(b'[');
    write_string(&mut out, name);
    if !arguments.is_empty() {
        out.push(b',');
        out.extend_from_slice(arguments.as_bytes());
    }
    out.push(b']');
    out
}

/// Writes an ACK up to its opening bracket.
pub fn begin_ack(out: &mut Vec<u8>, namespace: &str, id: u64) {
    header(out, 3, 0, namespace, Some(id));
    out.push(b'[');
}

/// An ACK with arguments as JSON text and this many attachments to follow.
pub fn ack(namespace: &str, id: u64, arguments: &str, attachments: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + namespace.len() + arguments.len());
    header(&mut out, if attachments > 0 { 6 } else { 3 }, attachments, namespace, Some(id));
    out.push(b'[');
    out.extend_from_slice(arguments.as_bytes());
    out.push(b']');
    out
}

/// A line for one client alone: volatile. It ends with `null`, or the stock client would take the text
/// for its recovery offset.
pub fn private_line(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + text.len());
    begin_event(&mut out, "/", None, "message");
    out.push(b',');
    write_string(&mut out, text);
    out.extend_from_slice(b",null]");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }

    #[test]
    fn s01_the_connect_reply_has_the_sid_and_the_pid_only_with_recovery() {
        assert_eq!(text(connect("/", "abc", None)), r#"40{"sid":"abc"}"#);
        assert_eq!(text(connect("/", "abc", Some("p"))), r#"40{"sid":"abc","pid":"p"}"#);
    }

    #[test]
    fn s02_the_reply_names_its_namespace() {
        assert_eq!(text(connect("/custom", "abc", None)), r#"40/custom,{"sid":"abc"}"#);
    }

    #[test]
    fn s03_an_unknown_namespace_is_refused_byte_exact() {
        assert_eq!(
            text(connect_error("/nope", "Invalid namespace", None)),
            r#"44/nope,{"message":"Invalid namespace"}"#
        );
    }

    #[test]
    fn s04_data_stands_in_a_refusal_only_when_there_is_any() {
        assert_eq!(
            text(connect_error("/", "no", Some(br#"{"code":"x"}"#))),
            r#"44{"message":"no","data":{"code":"x"}}"#
        );
    }

    #[test]
    fn s10_acks_keep_types_and_order() {
        assert_eq!(text(ack("/", 17, r#"1,"x",{"k":[false]}"#, 0)), r#"4317[1,"x",{"k":[false]}]"#);
        assert_eq!(text(ack("/chat", 17, "", 0)), "43/chat,17[]");
    }

    #[test]
    fn s12_binary_packets_count_their_attachments() {
        let places = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
        assert_eq!(text(event("/", "m", places, 2)), format!(r#"452-["m",{places}]"#));
        assert_eq!(text(ack("/", 17, places, 2)), format!("462-17[{places}]"));
    }

    #[test]
    fn lines_for_one_client_end_with_null() {
        assert_eq!(text(private_line("您已进入聊天室!")), r#"42["message","您已进入聊天室!",null]"#);
    }
}
