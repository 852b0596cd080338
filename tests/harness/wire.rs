//! Requests as bytes: what a well-behaved client would not send, or not in this way.

/// A request with a Host, and a Content-Length where there is a body or the method has one.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// GET.
pub fn get(target: &str) -> Vec<u8> {
    request("GET", target, &[], "")
}

/// POST of a JSON body to `/api/users`.
pub fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", "/api/users", &[("Content-Type", "application/json")], body)
}

/// The same POST with other framing: `headers` are whole lines without their ends, `rest` is all
/// that follows the head.
pub fn post_framed(headers: &[&str], rest: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".to_vec();
    for line in headers {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(rest.as_ref());
    bytes
}

/// A JSON body that makes a user with this address.
pub fn user(email: &str) -> String {
    serde_json::json!({"name": "n", "email": email}).to_string()
}
