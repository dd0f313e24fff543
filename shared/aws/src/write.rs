//! Writes of a transaction, each with its condition and with what it means if that does not hold.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem, Update};

use crate::{
    keys::Key,
    table::{Item, Table, key_item, number},
};

/// One write of a transaction, with what it means if its condition does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Write<L> {
    pub(crate) label: L,
    pub(crate) item: TransactWriteItem,
}

/// A condition on one item: an expression over `#a…` names and `:a…` values.
#[derive(Debug, Default, Clone)]
pub(crate) struct Expression {
    pub(crate) text: String,
    pub(crate) names: HashMap<String, String>,
    pub(crate) values: HashMap<String, AttributeValue>,
}

impl Expression {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    pub(crate) fn absent() -> Self {
        Self::new("attribute_not_exists(pk)")
    }

    pub(crate) fn present() -> Self {
        Self::new("attribute_exists(pk)")
    }

    pub(crate) fn name(mut self, placeholder: &str, name: &str) -> Self {
        self.names.insert(placeholder.to_owned(), name.to_owned());
        self
    }

    pub(crate) fn value(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.values.insert(placeholder.to_owned(), value);
        self
    }

    /// `revision` is what was read.
    pub(crate) fn revision(revision: u64) -> Self {
        Self::new("#revision = :was").name("#revision", "revision").value(":was", number(revision))
    }
}

pub(crate) fn put<L>(label: L, item: Item, table: &Table, condition: Option<Expression>) -> Write<L> {
    let condition = condition.unwrap_or_default();
    let put = Put::builder()
        .table_name(&table.name)
        .set_item(Some(item))
        .set_condition_expression(Some(condition.text).filter(|t| !t.is_empty()))
        .set_expression_attribute_names(Some(condition.names).filter(|n| !n.is_empty()))
        .set_expression_attribute_values(Some(condition.values).filter(|v| !v.is_empty()))
        .build()
        .expect("all set");
    Write { label, item: TransactWriteItem::builder().put(put).build() }
}

pub(crate) fn delete<L>(label: L, key: &Key, table: &Table, condition: Option<Expression>) -> Write<L> {
    let condition = condition.unwrap_or_default();
    let delete = Delete::builder()
        .table_name(&table.name)
        .set_key(Some(key_item(key)))
        .set_condition_expression(Some(condition.text).filter(|t| !t.is_empty()))
        .set_expression_attribute_names(Some(condition.names).filter(|n| !n.is_empty()))
        .set_expression_attribute_values(Some(condition.values).filter(|v| !v.is_empty()))
        .build()
        .expect("all set");
    Write { label, item: TransactWriteItem::builder().delete(delete).build() }
}

pub(crate) fn check<L>(label: L, key: &Key, table: &Table, condition: Expression) -> Write<L> {
    let check = ConditionCheck::builder()
        .table_name(&table.name)
        .set_key(Some(key_item(key)))
        .condition_expression(condition.text)
        .set_expression_attribute_names(Some(condition.names).filter(|n| !n.is_empty()))
        .set_expression_attribute_values(Some(condition.values).filter(|v| !v.is_empty()))
        .build()
        .expect("all set");
    Write { label, item: TransactWriteItem::builder().condition_check(check).build() }
}

/// `change` is an update expression; names and values of both expressions share one space.
pub(crate) fn update<L>(label: L, key: &Key, table: &Table, change: Expression, condition: Expression) -> Write<L> {
    let mut names = change.names;
    names.extend(condition.names);
    let mut values = change.values;
    values.extend(condition.values);
    let update = Update::builder()
        .table_name(&table.name)
        .set_key(Some(key_item(key)))
        .update_expression(change.text)
        .set_condition_expression(Some(condition.text).filter(|t| !t.is_empty()))
        .set_expression_attribute_names(Some(names).filter(|n| !n.is_empty()))
        .set_expression_attribute_values(Some(values).filter(|v| !v.is_empty()))
        .build()
        .expect("all set");
    Write { label, item: TransactWriteItem::builder().update(update).build() }
}
