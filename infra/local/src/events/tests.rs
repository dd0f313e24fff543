use aws_lambda_events::sqs::BatchItemFailure;
use tokio::sync::mpsc;

use super::*;
use crate::{embedded::EmbeddedAws, provision};

async fn in_queue(clients: &Clients, url: &str) -> (usize, usize) {
    let attribute = |name: &str| name.into();
    let answer = clients
        .sqs
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(attribute("ApproximateNumberOfMessages"))
        .attribute_names(attribute("ApproximateNumberOfMessagesNotVisible"))
        .send()
        .await
        .unwrap();
    let attributes = answer.attributes.unwrap();
    let number = |name: &str| attributes[&name.into()].parse().unwrap();
    (number("ApproximateNumberOfMessages"), number("ApproximateNumberOfMessagesNotVisible"))
}

#[tokio::test]
async fn what_fails_stays_and_the_rest_is_deleted() {
    let aws = EmbeddedAws::start(None).await.unwrap();
    let clients = aws.clients();
    let url = provision::queues(&clients).await.unwrap().reports_url;
    let (told, mut seen) = mpsc::unbounded_channel();
    let function = move |event: SqsEvent| {
        let told = told.clone();
        async move {
            let mut response = SqsBatchResponse::default();
            for record in event.records {
                let body = record.body.unwrap();
                told.send(body.clone()).unwrap();
                assert_ne!(body, "panic", "as functions do");
                if body == "bad" {
                    let mut failure = BatchItemFailure::default();
                    failure.item_identifier = record.message_id.unwrap();
                    response.batch_item_failures.push(failure);
                }
            }
            response
        }
    };
    let (stop, stopped) = watch::channel(false);
    let polling = tokio::spawn({
        let (clients, url) = (clients.clone(), url.clone());
        async move { deliver(&clients, &url, function, stopped).await }
    });
    for body in ["panic", "bad", "good"] {
        clients.sqs.send_message().queue_url(&url).message_body(body).send().await.unwrap();
        assert_eq!(seen.recv().await.unwrap(), body);
    }
    stop.send(true).unwrap();
    polling.await.unwrap();
    assert_eq!(in_queue(&clients, &url).await, (0, 2), "two wait for their next try, the good one is gone");
}
