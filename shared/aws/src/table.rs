//! The table: reads, pages and transactions, with retries where DynamoDB asks for them.

use std::{collections::HashMap, fmt::Display, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        RequestId, create_table::CreateTableError, put_item::PutItemError,
        transact_write_items::TransactWriteItemsError, update_item::UpdateItemError,
    },
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, KeysAndAttributes,
        ScalarAttributeType, Select,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{
    error::{Result, StoreError, away},
    keys::Key,
    random,
    write::{Expression, Write},
};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// Conflicts and throttles are retried so long, then the caller hears [`StoreError::Busy`].
const PATIENCE: Duration = Duration::from_secs(5);
const SERVICE: &str = "DynamoDB";

#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) client: Client,
    pub(crate) name: String,
}

/// Makes the table, for stand-ins; on AWS `infra/template.yaml` does. Making it again changes nothing.
pub async fn create(client: &Client, name: &str) -> Result<()> {
    let attribute = |name| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .expect("all set")
    };
    let schema = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("all set");
    let made = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("pk"))
        .attribute_definitions(attribute("sk"))
        .key_schema(schema("pk", KeyType::Hash))
        .key_schema(schema("sk", KeyType::Range))
        .send()
        .await;
    match made {
        Ok(_) => Ok(()),
        Err(e) if e.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => Ok(()),
        Err(e) => Err(away(SERVICE)(e)),
    }
}

/// Why a transaction did not happen.
#[derive(Debug)]
pub(crate) enum Cancelled<L> {
    /// The conditions of these writes did not hold.
    Conditions(Vec<L>),
    Store(StoreError),
}

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A record under its key.
pub(crate) fn item<T: Serialize>(key: &Key, record: &T) -> Result<Item> {
    let mut item: Item = serde_dynamo::to_item(record).map_err(StoreError::corrupt("record"))?;
    item.insert("pk".to_owned(), text(&key.pk));
    item.insert("sk".to_owned(), text(&key.sk));
    Ok(item)
}

pub(crate) fn record<T: DeserializeOwned>(item: Item, what: &'static str) -> Result<T> {
    serde_dynamo::from_item(item).map_err(StoreError::corrupt(what))
}

pub(crate) fn sort_key(item: &Item) -> Option<&str> {
    item.get("sk").and_then(|v| v.as_s().ok()).map(String::as_str)
}

pub(crate) fn key_item(key: &Key) -> Item {
    HashMap::from([("pk".to_owned(), text(&key.pk)), ("sk".to_owned(), text(&key.sk))])
}

impl Table {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key_item(key)))
            .consistent_read(true)
            .send()
            .await
            .map_err(away(SERVICE))?;
        Ok(answer.item)
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, key: &Key, what: &'static str) -> Result<Option<T>> {
        self.get(key).await?.map(|item| record(item, what)).transpose()
    }

    /// Those that exist, in no particular order. Keys must be distinct. However many they are, it takes one round trip.
    pub(crate) async fn batch_get(&self, keys: &[Key]) -> Result<Vec<Item>> {
        let until = Instant::now() + PATIENCE;
        let batches = keys.chunks(100).map(|batch| self.one_batch(batch, until));
        Ok(futures_util::future::try_join_all(batches).await?.into_iter().flatten().collect())
    }

    async fn one_batch(&self, keys: &[Key], until: Instant) -> Result<Vec<Item>> {
        let mut found = Vec::new();
        let mut wanted: Vec<Item> = keys.iter().map(key_item).collect();
        let mut attempt = 0;
        while !wanted.is_empty() {
            let request =
                KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build().expect("all set");
            let answer =
                self.client.batch_get_item().request_items(&self.name, request).send().await.map_err(away(SERVICE))?;
            found.extend(answer.responses.into_iter().flatten().flat_map(|(_, items)| items));
            wanted = answer.unprocessed_keys.into_iter().flatten().flat_map(|(_, left)| left.keys).collect();
            if !wanted.is_empty() {
                pause(&mut attempt, until).await?;
            }
        }
        Ok(found)
    }

    /// One page of a partition, in order of sort keys; ascending, or from the newest.
    pub(crate) async fn page(&self, pk: &str, query: &PageQuery<'_>) -> Result<Page> {
        let mut condition = "pk = :pk".to_owned();
        let mut values = HashMap::from([(":pk".to_owned(), text(pk))]);
        match (query.from, query.to) {
            (Some(from), Some(to)) => {
                condition.push_str(" AND sk BETWEEN :from AND :to");
                values.insert(":from".to_owned(), text(from));
                values.insert(":to".to_owned(), text(to));
            }
            (Some(from), None) => {
                condition.push_str(" AND sk >= :from");
                values.insert(":from".to_owned(), text(from));
            }
            (None, Some(to)) => {
                condition.push_str(" AND sk <= :to");
                values.insert(":to".to_owned(), text(to));
            }
            (None, None) => {}
        }
        let start = query.after.map(|sk| key_item(&Key { pk: pk.to_owned(), sk: sk.to_owned() }));
        let answer = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .set_exclusive_start_key(start)
            .scan_index_forward(!query.newest_first)
            .set_limit(query.limit.and_then(|l| i32::try_from(l).ok()))
            .send()
            .await
            .map_err(away(SERVICE))?;
        let next = answer.last_evaluated_key.as_ref().and_then(sort_key).map(str::to_owned);
        Ok(Page { items: answer.items.unwrap_or_default(), next })
    }

    /// A whole partition, or the part of it whose sort keys begin with `prefix`.
    pub(crate) async fn all(&self, pk: &str, prefix: &str) -> Result<Vec<Item>> {
        let to = end_of(prefix);
        let (from, to) = if prefix.is_empty() { (None, None) } else { (Some(prefix), Some(to.as_str())) };
        self.range(pk, from, to).await
    }

    /// The part of a partition between two sort keys, both of them included.
    pub(crate) async fn range(&self, pk: &str, from: Option<&str>, to: Option<&str>) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let query = PageQuery { from, to, after: after.as_deref(), ..PageQuery::default() };
            let page = self.page(pk, &query).await?;
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(items);
            }
        }
    }

    /// Removes one item, whatever it holds; one that is not there is no error.
    pub(crate) async fn delete(&self, key: &Key) -> Result<()> {
        self.client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key_item(key)))
            .send()
            .await
            .map(|_| ())
            .map_err(away(SERVICE))
    }

    /// The sort keys of a partition that begin with `prefix`. The rest of the items is read, and not sent.
    pub(crate) async fn sort_keys(&self, pk: &str, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.name)
                .consistent_read(true)
                .projection_expression("pk, sk")
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":pk", text(pk))
                .expression_attribute_values(":prefix", text(prefix))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(away(SERVICE))?;
            keys.extend(answer.items.unwrap_or_default().iter().filter_map(sort_key).map(str::to_owned));
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(keys);
            }
        }
    }

    /// How many items of a partition have a sort key that begins with `prefix`. They are read, and not sent.
    pub(crate) async fn count(&self, pk: &str, prefix: &str) -> Result<usize> {
        let mut count = 0;
        let mut start = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.name)
                .consistent_read(true)
                .select(Select::Count)
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":pk", text(pk))
                .expression_attribute_values(":prefix", text(prefix))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(away(SERVICE))?;
            count += usize::try_from(answer.count).unwrap_or(0);
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(count);
            }
        }
    }

    /// Adds one to a counter and gives its new value.
    pub(crate) async fn count_up(&self, key: &Key) -> Result<u64> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key_item(key)))
            .update_expression("ADD #n :one")
            .expression_attribute_names("#n", "value")
            .expression_attribute_values(":one", number(1))
            .return_values(aws_sdk_dynamodb::types::ReturnValue::UpdatedNew)
            .send()
            .await
            .map_err(away(SERVICE))?;
        answer
            .attributes
            .and_then(|a| a.get("value").and_then(|v| v.as_n().ok()).and_then(|n| n.parse().ok()))
            .ok_or_else(|| StoreError::unreadable("counter", "no number came back"))
    }

    /// One conditional update outside a transaction. `false`: the condition did not hold.
    pub(crate) async fn update(&self, key: &Key, change: Expression, condition: Expression) -> Result<bool> {
        let mut names = change.names;
        names.extend(condition.names);
        let mut values = change.values;
        values.extend(condition.values);
        let sent = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key_item(key)))
            .update_expression(change.text)
            .set_condition_expression(Some(condition.text).filter(|t| !t.is_empty()))
            .set_expression_attribute_names(Some(names).filter(|n| !n.is_empty()))
            .set_expression_attribute_values(Some(values).filter(|v| !v.is_empty()))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(e) if e.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) => {
                Ok(false)
            }
            Err(e) => Err(away(SERVICE)(e)),
        }
    }

    /// Writes one item. `false`: the condition did not hold.
    pub(crate) async fn put(&self, item: Item, condition: Option<Expression>) -> Result<bool> {
        let condition = condition.unwrap_or_default();
        let sent = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .set_condition_expression(Some(condition.text).filter(|t| !t.is_empty()))
            .set_expression_attribute_names(Some(condition.names).filter(|n| !n.is_empty()))
            .set_expression_attribute_values(Some(condition.values).filter(|v| !v.is_empty()))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(e) if e.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                Ok(false)
            }
            Err(e) => Err(away(SERVICE)(e)),
        }
    }

    /// All of it or nothing. Conflicts with other transactions, and throttles, are tried again with jitter.
    ///
    /// An answer that got lost is safe: the SDK sends one request token with all its tries, so that DynamoDB does it once.
    pub(crate) async fn transact<L: Clone>(&self, writes: Vec<Write<L>>) -> Result<(), Cancelled<L>> {
        let (labels, items): (Vec<L>, Vec<_>) = writes.into_iter().map(|w| (w.label, w.item)).unzip();
        let until = Instant::now() + PATIENCE;
        let mut attempt = 0;
        loop {
            let sent = self.client.transact_write_items().set_transact_items(Some(items.clone())).send().await;
            let Err(error) = sent else { return Ok(()) };
            let failed = failed_conditions(&error, &labels);
            if !failed.is_empty() {
                return Err(Cancelled::Conditions(failed));
            }
            if !is_contention(&error) {
                tracing::warn!(aws.request_id = error.request_id(), code = error.code(), "a transaction failed");
                return Err(Cancelled::Store(away(SERVICE)(error)));
            }
            pause(&mut attempt, until).await.map_err(Cancelled::Store)?;
        }
    }
}

/// After every sort key that begins with `prefix`: the last code point that one of ours can hold is far below this one.
pub(crate) fn end_of(prefix: &str) -> String {
    format!("{prefix}\u{ffff}")
}

/// Which part of a partition, and how much of it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PageQuery<'a> {
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    /// Sort key of the last item of the page before.
    pub after: Option<&'a str>,
    pub limit: Option<usize>,
    pub newest_first: bool,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub items: Vec<Item>,
    /// Where the next page starts; none at the end.
    pub next: Option<String>,
}

fn failed_conditions<L: Clone>(error: &SdkError<TransactWriteItemsError>, labels: &[L]) -> Vec<L> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return Vec::new();
    };
    let reasons = cancelled.cancellation_reasons();
    let failed = |code: Option<&str>| code == Some("ConditionalCheckFailed");
    reasons.iter().zip(labels).filter(|(r, _)| failed(r.code())).map(|(_, label)| label.clone()).collect()
}

fn is_contention(error: &SdkError<TransactWriteItemsError>) -> bool {
    let transient = |code: Option<&str>| {
        matches!(
            code,
            Some(
                "TransactionConflict"
                    | "ThrottlingError"
                    | "ProvisionedThroughputExceeded"
                    | "ThrottlingException"
                    | "ProvisionedThroughputExceededException"
                    | "TransactionInProgressException"
                    | "RequestLimitExceeded"
            )
        )
    };
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons().iter().any(|r| transient(r.code()))
        }
        _ => transient(error.code()),
    }
}

/// Waits with full jitter, longer each time; [`StoreError::Busy`] when the patience is over.
pub(crate) async fn pause(attempt: &mut u32, until: Instant) -> Result<()> {
    let ceiling = Duration::from_millis(20) * 2_u32.pow((*attempt).min(6));
    *attempt += 1;
    let fraction = f64::from(u16::from_be_bytes(random::bytes())) / f64::from(u16::MAX);
    let wait = ceiling.mul_f64(fraction);
    if Instant::now() + wait > until {
        return Err(StoreError::Busy);
    }
    tokio::time::sleep(wait).await;
    Ok(())
}

/// When an attempt that starts now must have ended.
pub(crate) fn patience() -> Instant {
    Instant::now() + PATIENCE
}
