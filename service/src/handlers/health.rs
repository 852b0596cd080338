//! Is it alive, is it ready? Query parameters are ignored here: a prober may add its own.

use bytes::Bytes;
use http::StatusCode;

use super::{Answer, typed};
use crate::App;
use crate::problem::{Kind, Problem};
use crate::store::StoreError;

/// `GET /livez` and `GET /api/health`: the process answers. Depends on nothing else.
pub fn alive() -> Answer {
    Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"OK")))
}

/// `GET /readyz`: requests can be served, or what keeps them from it. Whoever asks has so many of the clients'
/// connections itself, which will be free again.
pub async fn ready(app: &App, own: usize) -> Answer {
    if app.is_draining() {
        return Err(Problem::new(Kind::NotReady, "the service is stopping"));
    }
    if app.clients.is_full_beside(own) {
        return Err(Problem::new(Kind::Overloaded, "the server has as many connections as it can take"));
    }
    if let Some(reason) = app.inference.repository.unready() {
        return Err(Problem::new(Kind::NotReady, reason));
    }
    app.store.check().await.map_err(not_ready)?;
    alive()
}

/// As for any client, with what whoever runs the service should do.
fn not_ready(mut error: StoreError) -> Problem {
    if let StoreError::Unavailable { reason, advice: Some(advice), .. } = &mut error {
        *reason = format!("{reason}: {advice}").into();
    }
    error.into()
}
