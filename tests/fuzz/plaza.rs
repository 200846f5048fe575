//! Frames of Plaza's own protocol, in both forms.

use super::{Target, is_object, text, texts};
use plaza_edge::wire::plaza::{Body, ClientFrame, Content, json, proto};
use plaza_proto::client::{self, client_frame, publish};
use prost::Message;

pub(super) const JSON: Target = Target { name: "plaza-json", check: in_json, seeds: json_seeds };
pub(super) const PROTOBUF: Target = Target { name: "plaza-protobuf", check: in_protobuf, seeds: protobuf_seeds };

/// A frame is an object, says the same in the other form, and with a space before it, which its short way cannot read.
fn in_json(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let frame = json::decode(text);
    assert_eq!(frame.as_ref().ok(), json::decode(&format!(" {text}")).as_ref().ok());
    match frame {
        Ok(frame) => {
            assert!(is_object(text));
            in_both_forms(&frame);
        }
        Err(bad) => assert!(!bad.message.is_empty() && bad.id < 1 << 53),
    }
}

/// A frame that is written again reads the same.
fn in_protobuf(input: &[u8]) {
    match proto::decode(input) {
        Ok(frame) => in_both_forms(&frame),
        Err(bad) => assert!(!bad.message.is_empty()),
    }
}

fn in_both_forms(frame: &ClientFrame<'_>) {
    assert!(frame.id < 1 << 53);
    let written = client::ClientFrame { id: frame.id, body: Some(written(&frame.body)) }.encode_to_vec();
    assert_eq!(proto::decode(&written).as_ref(), Ok(frame));
}

fn written(body: &Body<'_>) -> client_frame::Body {
    use client_frame::Body as B;
    match body {
        Body::Hello(hello) => B::Hello(client::Hello {
            token: hello.token.as_ref().into(),
            guest: hello.guest.as_ref().into(),
            locale: hello.locale.as_ref().into(),
            resume: hello.resume.as_ref().into(),
        }),
        Body::SetUsername { username } => B::SetUsername(client::SetUsername { username: username.as_ref().into() }),
        Body::Join { room, after } => {
            B::Join(client::Join { room: room.as_ref().into(), after: after.as_ref().into() })
        }
        Body::Leave { room } => B::Leave(client::Leave { room: room.as_ref().into() }),
        Body::Typing { room } => B::Typing(client::Typing { room: room.as_ref().into() }),
        Body::Who { room } => B::Who(client::Who { room: room.as_ref().into() }),
        Body::History { room, before, after, limit } => B::History(client::History {
            room: room.as_ref().into(),
            before: before.as_ref().into(),
            after: after.as_ref().into(),
            limit: *limit,
        }),
        Body::Publish(publish) => B::Publish(client::Publish {
            room: publish.room.as_ref().into(),
            client_id: publish.client_id.as_ref().into(),
            retry: publish.retry,
            trace: publish.trace,
            traceparent: publish.traceparent.as_ref().into(),
            content: Some(match &publish.content {
                Content::Text(text) => publish::Content::Text(text.as_ref().into()),
                Content::Data { kind, json } => {
                    publish::Content::Data(client::Data { r#type: kind.as_ref().into(), data: json.to_vec().into() })
                }
            }),
        }),
    }
}

fn json_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "{\"id\":1,\"hello\":{\"token\":\"t\",\"guest\":\"g\",\"locale\":\"zh\",\"resume\":\"r\"}}",
        "{\"id\":2,\"setUsername\":{\"username\":\"\\u4f60\"}}",
        "{\"join\":{\"room\":\"lobby\",\"after\":\"x\"}}",
        "{\"id\":4,\"publish\":{\"room\":\"a\",\"text\":\"b\",\"clientId\":\"c\",\"retry\":false}}",
        "{\"id\":4,\"publish\":{\"room\":\"a\",\"type\":\"t\",\"data\":{\"x\":[\"\\ude00\",1e999]},\"clientId\":\"c\",\"retry\":true}}",
        "{\"publish\":{\"room\":\"a\",\"text\":\"hi\",\"trace\":true,\"traceparent\":\"00-1-2-01\"}}",
        "{\"history\":{\"room\":\"a\",\"before\":\"b\",\"limit\":9}}",
        "{\"who\":{\"room\":\"a\"}}",
        "{\"leave\":{\"room\":\"a\"}}",
        "{\"typing\":{\"room\":\"a\"}}",
    ])
}

fn protobuf_seeds() -> Vec<Vec<u8>> {
    let frames = json_seeds();
    let frames = frames.iter().filter_map(|seed| json::decode(text(seed)?).ok());
    frames.map(|frame| client::ClientFrame { id: frame.id, body: Some(written(&frame.body)) }.encode_to_vec()).collect()
}
