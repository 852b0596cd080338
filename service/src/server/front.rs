//! What is served on a listening socket: the API, or the control routes.

use bytes::Bytes;
use http::{Request, Response};

use crate::{App, admin, routes};

/// Which routes a listening socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// The API, for everybody.
    Public,
    /// Control, for the host and whoever runs the service.
    Control,
}

impl Front {
    /// Answers a request.
    pub async fn respond(self, app: &App, request: &Request<Bytes>) -> Response<Bytes> {
        match self {
            Self::Public => routes::respond(app, request).await,
            Self::Control => admin::respond(app, request).await,
        }
    }

    /// The route of a path, for the log.
    pub fn route(self, path: &str) -> &'static str {
        match self {
            Self::Public => routes::name(path),
            Self::Control => admin::name(path),
        }
    }

    /// The setting that says which address is listened on.
    pub fn address_setting(self) -> &'static str {
        match self {
            Self::Public => "LISTEN_ADDR",
            Self::Control => "ADMIN_ADDR",
        }
    }
}
