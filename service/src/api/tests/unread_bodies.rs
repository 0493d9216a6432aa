//! What becomes of a connection whose request was answered without its body being read.

use super::*;

/// The head of a request that is refused, whatever its body.
fn refused(length: usize, headers: &str) -> String {
    format!(
        "POST /sync/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Token wrong\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
}

/// The next answer on a connection, with its head in lower case.
async fn answer(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let head_and_length = |read: &[u8]| {
        let head = memchr::memmem::find(read, b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let length = text.split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()?;
        (read.len() >= head + 4 + length).then_some(text)
    };
    loop {
        if let Some(head) = head_and_length(&read) {
            return head;
        }
        let more = tokio::time::timeout(DEADLINE, socket.read_buf(&mut read)).await.expect("an answer");
        assert_ne!(more.unwrap(), 0, "the connection ended: {}", String::from_utf8_lossy(&read));
    }
}

async fn ends(mut socket: TcpStream) {
    let mut rest = Vec::new();
    // Ended by force where something that was sent had not been read.
    let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await.expect("the connection ends");
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_connection_goes_on_after_a_short_body_that_came_late() {
    let service = start().await;
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    for _ in 0..3 {
        socket.write_all(refused(2, "").as_bytes()).await.unwrap();
        // The request is refused before this is sent.
        tokio::time::sleep(Duration::from_millis(50)).await;
        socket.write_all(b"{}").await.unwrap();
        let head = answer(&mut socket).await;
        assert!(head.starts_with("http/1.1 401") && !head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_after_an_answer_says_so() {
    let service = start().await;
    // Its client waits for the answer before it sends the body, or is asked to go on first.
    for headers in ["", "expect: 100-continue\r\n"] {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        socket.write_all(refused(2, headers).as_bytes()).await.unwrap();
        let head = answer(&mut socket).await;
        assert!(head.starts_with("http/1.1 401") && head.contains("connection: close"), "{headers}: {head}");
        ends(socket).await;
    }
}

#[tokio::test]
async fn a_client_is_told_to_go_on_where_its_body_is_read() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    let head = refused(2, "expect: 100-continue\r\n").replace("wrong", &token("anna"));
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut read = [0; 25];
    tokio::time::timeout(DEADLINE, socket.read_exact(&mut read)).await.expect("it is told").unwrap();
    assert_eq!(&read, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"{}").await.unwrap();
    let mut head = [0; 15];
    tokio::time::timeout(DEADLINE, socket.read_exact(&mut head)).await.expect("an answer").unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}
