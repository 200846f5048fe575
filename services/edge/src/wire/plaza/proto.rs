//! The protobuf form: the generated types, one frame in a binary message.

use super::frame::{BadFrame, Body, ClientFrame, Content, Hello, Publish, client_event};
use crate::wire::RoomEvent;
use crate::wire::json::MAX_INTEGER;
use crate::wire::websocket::{FrameBuffer, Opcode};
use bytes::Bytes;
use plaza_proto::client::{self, ServerFrame, client_frame, publish, server_frame};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use prost::Message;
use std::borrow::Cow;

/// Reads a binary message.
///
/// # Errors
/// [`BadFrame`] for anything that is not one known body in one frame.
pub fn decode(message: &[u8]) -> Result<ClientFrame<'static>, BadFrame> {
    let frame = client::ClientFrame::decode(message).map_err(|e| BadFrame::new(0, format!("the frame: {e}")))?;
    if frame.id > MAX_INTEGER {
        return Err(BadFrame::new(0, "an id is at most 2^53-1"));
    }
    let body = frame.body.ok_or_else(|| BadFrame::no_body(frame.id))?;
    Ok(ClientFrame { id: frame.id, body: read_body(frame.id, body)? })
}

fn read_body(id: u64, body: client_frame::Body) -> Result<Body<'static>, BadFrame> {
    use client_frame::Body as B;
    Ok(match body {
        B::Hello(b) => Body::Hello(Hello {
            token: b.token.into(),
            guest: b.guest.into(),
            locale: b.locale.into(),
            resume: b.resume.into(),
        }),
        B::SetUsername(b) => Body::SetUsername { username: b.username.into() },
        B::Join(b) => Body::Join { room: b.room.into(), after: b.after.into() },
        B::Leave(b) => Body::Leave { room: b.room.into() },
        B::Publish(b) => {
            let content = match b.content {
                Some(publish::Content::Text(text)) => Content::Text(text.into()),
                Some(publish::Content::Data(data)) => {
                    Content::Data { kind: data.r#type.into(), json: Cow::Owned(data.data.into()) }
                }
                None => return Err(BadFrame::no_content(id)),
            };
            Body::Publish(Publish {
                room: b.room.into(),
                content,
                client_id: b.client_id.into(),
                retry: b.retry,
                trace: b.trace,
                traceparent: b.traceparent.into(),
            })
        }
        B::Typing(b) => Body::Typing { room: b.room.into() },
        B::History(b) => {
            Body::History { room: b.room.into(), before: b.before.into(), after: b.after.into(), limit: b.limit }
        }
        B::Who(b) => Body::Who { room: b.room.into() },
    })
}

/// Writes a server frame as the payload of a binary message.
pub fn encode(frame: &ServerFrame) -> Vec<u8> {
    frame.encode_to_vec()
}

/// A server frame as a complete WebSocket frame.
pub fn frame(frame: &ServerFrame) -> Bytes {
    let mut buffer = FrameBuffer::with_capacity(frame.encoded_len());
    frame.encode_raw(buffer.payload());
    buffer.finish(Opcode::Binary)
}

/// A room event as a complete WebSocket frame.
pub fn event_frame(room: &RoomName, event: &RoomEvent<'_>, previous: Option<Position>) -> Bytes {
    let body = server_frame::Body::Event(client_event(room, event, previous));
    frame(&ServerFrame { id: 0, body: Some(body) })
}

/// "Somebody is typing" as a complete WebSocket frame.
pub fn typing_frame(room: &RoomName, username: &str) -> Bytes {
    let notice = client::TypingNotice { room: room.to_string(), username: username.to_owned() };
    frame(&ServerFrame { id: 0, body: Some(server_frame::Body::Typing(notice)) })
}
