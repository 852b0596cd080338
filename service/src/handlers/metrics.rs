//! What the process counts. Query parameters are ignored here: who scrapes may add its own.

use http::StatusCode;

use super::{Answer, typed};
use crate::App;
use crate::problem::{Kind, Problem};
use crate::telemetry::metrics::CONTENT_TYPE;

/// `GET /report`: all of them, once there is no more to count.
pub async fn last(app: &App) -> Answer {
    if !app.is_finished().await {
        return Err(Problem::new(Kind::NoSuchResource, "there is a report only after POST /drain?report=true"));
    }
    let answer = all(app);
    app.report_given();
    answer
}

/// `GET /metrics`: all of them.
pub fn all(app: &App) -> Answer {
    let text = app.metrics.render(app.clients.open(), app.store.pool()).map_err(|error| {
        tracing::error!(%error, "cannot write the metrics");
        Problem::new(Kind::Internal, "the metrics could not be written")
    })?;
    Ok(typed(StatusCode::OK, CONTENT_TYPE, text.into()))
}
