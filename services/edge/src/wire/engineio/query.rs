//! The query of an Engine.IO request, and the checks on it in the protocol's order.

use super::{HandshakeError, Sid};

/// One parameter that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// Not there.
    #[default]
    Missing,
    /// Once, as it stands: none of the right values needs percent encoding.
    Value(&'a str),
    /// More than once, or in the style of an array: never a right value.
    Repeated,
}

impl<'a> Parameter<'a> {
    fn add(&mut self, value: &'a str, array: bool) {
        *self = if *self == Self::Missing && !array { Self::Value(value) } else { Self::Repeated };
    }
}

/// A transport that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// GET and POST.
    Polling,
    /// One WebSocket.
    WebSocket,
}

/// The parameters that matter; all others are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// `EIO`: the protocol's version.
    pub version: Parameter<'a>,
    /// `transport`.
    pub transport: Parameter<'a>,
    /// `sid`.
    pub sid: Parameter<'a>,
}

impl<'a> Query<'a> {
    /// Reads the text behind the `?`.
    pub fn parse(text: &'a str) -> Self {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, array) = match name.split_once('[').or_else(|| name.split_once("%5B")) {
                Some((name, _)) => (name, true),
                None => (name, false),
            };
            match name {
                "EIO" => query.version.add(value, array),
                "transport" => query.transport.add(value, array),
                "sid" => query.sid.add(value, array),
                _ => {}
            }
        }
        query
    }

    /// First check: the transport.
    ///
    /// # Errors
    /// [`HandshakeError::TransportUnknown`].
    pub fn transport(&self) -> Result<Transport, HandshakeError> {
        match self.transport {
            Parameter::Value("polling") => Ok(Transport::Polling),
            Parameter::Value("websocket") => Ok(Transport::WebSocket),
            Parameter::Missing | Parameter::Value(_) | Parameter::Repeated => Err(HandshakeError::TransportUnknown),
        }
    }

    /// Second check: the sid's form. `None`: there is none, a handshake.
    ///
    /// # Errors
    /// [`HandshakeError::SessionUnknown`] for a text that no edge gave out.
    pub fn sid(&self) -> Result<Option<Sid>, HandshakeError> {
        match self.sid {
            Parameter::Missing => Ok(None),
            Parameter::Value(text) => Sid::parse(text).map(Some).ok_or(HandshakeError::SessionUnknown),
            Parameter::Repeated => Err(HandshakeError::SessionUnknown),
        }
    }

    /// Last check: the protocol's version.
    ///
    /// # Errors
    /// [`HandshakeError::Version`] for everything but 4.
    pub fn version(&self) -> Result<(), HandshakeError> {
        (self.version == Parameter::Value("4")).then_some(()).ok_or(HandshakeError::Version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn e02_missing_and_foreign_values_are_refused() {
        for wrong in ["", "EIO=4", "EIO=4&transport=", "EIO=4&transport=abc", "transport=webtransport"] {
            assert_eq!(Query::parse(wrong).transport(), Err(HandshakeError::TransportUnknown), "{wrong}");
        }
        for wrong in ["transport=polling", "EIO=3&transport=polling", "EIO=abc&transport=polling", "EIO=&a"] {
            assert_eq!(Query::parse(wrong).version(), Err(HandshakeError::Version), "{wrong}");
        }
    }

    #[test]
    fn e03_repeated_and_array_style_parameters_are_refused() {
        let sid = Sid { edge: 0, shard: 0, slot: 0, secret: [1; 16] };
        assert_eq!(Query::parse(&format!("t=x&sid={sid}")).sid(), Ok(Some(sid)));
        assert_eq!(Query::parse("t=x").sid(), Ok(None));
        for wrong in
            [format!("sid={sid}&sid={sid}"), format!("sid[]={sid}"), format!("sid%5B0%5D={sid}"), "sid=".into()]
        {
            assert_eq!(Query::parse(&wrong).sid(), Err(HandshakeError::SessionUnknown), "{wrong}");
        }
        assert!(Query::parse("transport=polling&transport=polling").transport().is_err());
        assert!(Query::parse("EIO=4&EIO=4").version().is_err());
    }

    proptest! {
        #[test]
        fn any_query_is_read(text: String) {
            let query = Query::parse(&text);
            let _ = (query.transport(), query.sid(), query.version());
        }
    }
}
