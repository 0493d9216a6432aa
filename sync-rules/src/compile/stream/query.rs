//! A stream's query: FROM, the select list, and the condition as a tree of terms.

use crate::{
    definition::OutputItem,
    diagnostic::{Problem, ScalarId},
    expression::Expression,
    plan::TablePattern,
    syntax::{Expr, ExprKind, FromItem, Item, Name, Select, Source},
};

use super::{
    super::{Context, normal_form::Tree, table::pattern},
    conjunction::Term,
    leaf::{FunctionInstance, Instances, Node, StreamExpression, StreamLeaf, TableInstance},
    scope::{Frame, ItemKind, Place, ScopeItem, StreamScope},
    with::With,
};

/// Sub-selects nested deeper are refused.
const DEPTH_MAX: usize = 32;

/// A query's names resolved and its conditions found.
pub(super) struct Query {
    pub instances: Instances,
    /// The table whose rows are synced.
    pub primary: usize,
    pub columns: Vec<OutputColumn>,
    pub condition: Tree<Term>,
}

/// An output column.
#[derive(Debug, Clone)]
pub(super) enum OutputColumn {
    /// All columns of the primary table.
    Star,
    Value {
        name: String,
        value: StreamExpression,
    },
}

impl OutputColumn {
    /// The column in the words of the plan. `resolve` knows the elements a row is expanded by.
    pub(super) fn item(
        &self,
        resolve: impl Fn(&StreamExpression) -> Expression<crate::definition::RowInput>,
    ) -> OutputItem {
        match self {
            Self::Star => OutputItem::Star,
            Self::Value { name, value } => OutputItem::Column { name: name.clone(), value: resolve(value) },
        }
    }
}

/// Reads queries. Findings that do not stop a query are collected.
pub(super) struct QueryReader<'a> {
    pub context: &'a Context<'a>,
    pub with: &'a With<'a>,
    pub instances: Instances,
    pub problems: Vec<Problem>,
    depth: usize,
}

impl<'a> QueryReader<'a> {
    pub(super) fn new(context: &'a Context<'a>, with: &'a With<'a>) -> Self {
        Self { context, with, instances: Instances::default(), problems: Vec::new(), depth: 0 }
    }

    /// Reads a stream's query; `None` if there are findings, which are then in `problems`.
    pub(super) fn read(mut self, select: &Select) -> Result<Query, Vec<Problem>> {
        if let Some(problem) = &select.refused_clause {
            return Err(vec![problem.clone()]);
        }
        let mut conditions = Vec::new();
        let frame = self.read_from(&select.from, None, &mut conditions);
        let columns = self.output(select, &frame);
        if let Some(filter) = &select.filter {
            let tree = self.condition(filter, false, &frame);
            conditions.push(tree);
        }
        let has_unknown = frame.items.iter().any(|item| matches!(item.kind, ItemKind::Unknown));
        if has_unknown {
            return Err(self.problems);
        }
        match self.primary(select, &columns) {
            Some(primary) if self.problems.is_empty() => {
                let columns = columns.into_iter().map(|(column, _)| column).collect();
                Ok(Query { instances: self.instances, primary, columns, condition: Tree::All(conditions) })
            }
            _ => Err(self.problems),
        }
    }

    pub(super) fn scope<'s>(&'s self, frame: &'s Frame<'s>, place: Place) -> StreamScope<'s> {
        StreamScope { context: self.context, instances: &self.instances, frame, place }
    }

    /// Compiles an expression; a finding leaves nothing of it.
    pub(super) fn lower(&mut self, expr: &Expr, frame: &Frame<'_>, place: Place) -> Option<StreamExpression> {
        match super::super::expression::lower(expr, &self.scope(frame, place)) {
            Ok(expression) => Some(expression),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// Reads FROM. Conditions of JOIN … ON and of sub-selects are added to `conditions`.
    pub(super) fn read_from<'p>(
        &mut self,
        items: &[FromItem],
        parent: Option<&'p Frame<'p>>,
        conditions: &mut Vec<Tree<Term>>,
    ) -> Frame<'p> {
        let mut frame = Frame { items: Vec::new(), parent };
        for item in items {
            self.problems.extend(item.refused_join.clone());
            match self.read_item(item, &frame, conditions) {
                Ok(found) => {
                    let is_known = frame.items.iter().any(|known| same_name(&known.name, &found.name));
                    if is_known {
                        let message = format!("the name `{}` is there twice in FROM", found.name.text);
                        self.problems.push(
                            Problem::new("duplicate_table_name", message, found.name.position)
                                .help("give one of them an alias: FROM table AS alias"),
                        );
                    }
                    frame.items.push(found);
                }
                Err(problem) => {
                    self.problems.push(problem);
                    if let Some(name) = item_name(item) {
                        frame.items.push(ScopeItem { name, kind: ItemKind::Unknown });
                    }
                }
            }
        }
        for on in items.iter().filter_map(|item| item.on.as_ref()) {
            let tree = self.condition(on, false, &frame);
            conditions.push(tree);
        }
        frame
    }

    fn read_item(
        &mut self,
        item: &FromItem,
        frame: &Frame<'_>,
        conditions: &mut Vec<Tree<Term>>,
    ) -> Result<ScopeItem, Problem> {
        let named = |name: &Name| item.alias.as_ref().unwrap_or(name).clone();
        match &item.source {
            Source::Table { schema, name } => {
                if schema.is_none()
                    && let Some(select) = self.named_select(&name.text)
                {
                    let (select, id) = select?;
                    let columns = self.inside(id, |reader| reader.sub_select(select, &item.columns, conditions))?;
                    return Ok(ScopeItem { name: named(name), kind: ItemKind::Columns(columns) });
                }
                let pattern: TablePattern = pattern(schema.as_ref(), name, self.context)?;
                let object_type = match &item.alias {
                    Some(alias) => Some(alias.text.clone()),
                    None if pattern.name.ends_with('%') => None,
                    None => Some(pattern.name.clone()),
                };
                self.instances.tables.push(TableInstance { pattern, object_type });
                let table = self.instances.tables.len() - 1;
                conditions.push(Tree::Term(Term::Present(Node::Table(table))));
                Ok(ScopeItem { name: named(name), kind: ItemKind::Table(table) })
            }
            Source::Function { name, arguments } => {
                if name.text != "json_each" {
                    let message = format!("there is no table function {}()", name.text);
                    return Err(Problem::new("load_failed", message, name.position).help("use json_each(array)"));
                }
                let [argument] = arguments.as_slice() else {
                    return Err(Problem::new("argument_count", "json_each() takes one argument", name.position));
                };
                let array = super::super::expression::lower(argument, &self.scope(frame, Place::Inner))?;
                let function = self.function(array, name.position)?;
                conditions.push(Tree::Term(Term::PresentFunction(function)));
                Ok(ScopeItem { name: named(name), kind: ItemKind::Function(function) })
            }
            Source::Select(select) => {
                let Some(alias) = &item.alias else {
                    return Err(Problem::new("sql_syntax", "a sub-select in FROM needs a name", select.position)
                        .help("write (SELECT …) AS name"));
                };
                let columns = self.sub_select(select, &item.columns, conditions)?;
                Ok(ScopeItem { name: alias.clone(), kind: ItemKind::Columns(columns) })
            }
        }
    }

    /// The select `with` gives a name to. What stands in `with` is not seen by its other entries.
    pub(super) fn named_select(&self, name: &str) -> Option<Result<(&'a Select, Option<ScalarId>), Problem>> {
        if self.context.scalar.get().is_some() { None } else { self.with.get(name) }
    }

    /// Reads a part of `with`: findings are about its text.
    pub(super) fn inside<T>(
        &mut self,
        id: Option<ScalarId>,
        read: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let before = self.problems.len();
        self.context.scalar.set(id);
        let found = read(self);
        self.context.scalar.set(None);
        self.problems[before..].iter_mut().for_each(|problem| problem.scalar = id);
        found.map_err(|problem| Problem { scalar: id, ..problem })
    }

    /// Adds a `json_each` over an array.
    pub(super) fn function(&mut self, array: StreamExpression, at: crate::syntax::Position) -> Result<usize, Problem> {
        let owner = match self.instances.nodes(&array).as_slice() {
            [Node::Table(table)] => Some(*table),
            _ => None,
        };
        let mut is_nested = false;
        array.visit_inputs(&mut |leaf| is_nested |= matches!(leaf, StreamLeaf::Element { .. }));
        if is_nested {
            return Err(Problem::new("table_function_inputs", "an array inside an array cannot be taken apart", at)
                .help("store the inner values in a table of their own"));
        }
        self.instances.functions.push(FunctionInstance { array, owner });
        Ok(self.instances.functions.len() - 1)
    }

    /// Reads a sub-select in FROM, which sees nothing of the query around it.
    pub(super) fn sub_select(
        &mut self,
        select: &Select,
        names: &[Name],
        conditions: &mut Vec<Tree<Term>>,
    ) -> Result<Vec<(String, StreamExpression)>, Problem> {
        if self.depth == DEPTH_MAX {
            return Err(Problem::new("sql_syntax", "sub-selects are nested too deeply", select.position));
        }
        if let Some(problem) = &select.refused_clause {
            return Err(problem.clone());
        }
        self.depth += 1;
        let frame = self.read_from(&select.from, None, conditions);
        let columns = self.sub_select_columns(select, names, &frame);
        if let Some(filter) = &select.filter {
            let tree = self.condition(filter, false, &frame);
            conditions.push(tree);
        }
        self.depth -= 1;
        columns
    }

    fn sub_select_columns(
        &mut self,
        select: &Select,
        names: &[Name],
        frame: &Frame<'_>,
    ) -> Result<Vec<(String, StreamExpression)>, Problem> {
        let mut columns: Vec<(String, StreamExpression)> = Vec::new();
        for item in &select.items {
            match item {
                Item::Star { position, .. } => {
                    return Err(Problem::new("star_unsupported", "a sub-select names its columns", *position)
                        .help("list the columns that are used outside"));
                }
                Item::Column { expr, alias, text } => {
                    let name = self.column_name(expr, alias.as_ref(), text);
                    // A name in the column list will do as well.
                    let value = super::super::expression::lower(expr, &self.scope(frame, Place::Inner))?;
                    columns.push((name, value));
                }
            }
        }
        if !names.is_empty() {
            if names.len() != columns.len() {
                let message = format!("{} names for {} columns", names.len(), columns.len());
                return Err(Problem::new("column_count_mismatch", message, names[0].position));
            }
            columns.iter_mut().zip(names).for_each(|(column, name)| column.0.clone_from(&name.text));
        }
        for (index, (name, _)) in columns.iter().enumerate() {
            if columns[..index].iter().any(|(earlier, _)| earlier == name) {
                let message = format!("the column `{name}` is there twice");
                return Err(Problem::new("duplicate_column_name", message, select.position)
                    .help("give one of them another name with AS"));
            }
        }
        Ok(columns)
    }

    /// The name of a column: its alias, its own name, or how it is written.
    fn column_name(&self, expr: &Expr, alias: Option<&Name>, text: &str) -> String {
        match (&expr.kind, alias) {
            (_, Some(alias)) => alias.text.clone(),
            (ExprKind::Column { name, .. }, None) => name.text.clone(),
            _ => {
                let problem = Problem::new("alias_recommended", "the column has no name of its own", expr.position);
                self.context.warn(problem.help("write `expression AS name`"));
                text.to_owned()
            }
        }
    }

    /// The select list, each column with the nodes it reads.
    fn output(&mut self, select: &Select, frame: &Frame<'_>) -> Vec<(OutputColumn, Vec<Node>)> {
        let mut columns: Vec<(OutputColumn, Vec<Node>)> = Vec::new();
        let mut has_alias = false;
        for item in &select.items {
            match item {
                Item::Column { expr, alias, text } => {
                    has_alias |= alias.is_some();
                    let name = self.column_name(expr, alias.as_ref(), text);
                    if let Some(value) = self.lower(expr, frame, Place::Output) {
                        let nodes = self.instances.nodes(&value);
                        columns.push((OutputColumn::Value { name, value }, nodes));
                    }
                }
                Item::Star { table, position } => {
                    if has_alias {
                        self.context.warn(
                            Problem::new(
                                "star_may_overwrite",
                                "`*` replaces columns of the same name before it",
                                *position,
                            )
                            .help("put `*` first"),
                        );
                    }
                    self.star(table.as_ref(), *position, frame, &mut columns);
                }
            }
        }
        columns
    }

    fn star(
        &mut self,
        table: Option<&Name>,
        at: crate::syntax::Position,
        frame: &Frame<'_>,
        columns: &mut Vec<(OutputColumn, Vec<Node>)>,
    ) {
        let items: Vec<&ScopeItem> = match table {
            None => frame.items.iter().collect(),
            Some(name) => {
                let Some(item) = frame.find(name) else {
                    let message = format!("there is no table `{}` in this query", name.text);
                    self.problems.push(Problem::new("undefined_reference", message, name.position));
                    return;
                };
                vec![item]
            }
        };
        for item in items {
            match &item.kind {
                ItemKind::Table(table) => columns.push((OutputColumn::Star, vec![Node::Table(*table)])),
                ItemKind::Columns(list) => columns.extend(list.iter().map(|(name, value)| {
                    let column = OutputColumn::Value { name: name.clone(), value: value.clone() };
                    (column, self.instances.nodes(value))
                })),
                ItemKind::Unknown => {}
                ItemKind::Function(_) => self.problems.push(
                    Problem::new("result_table_invalid", "the elements of an array cannot be synced", at)
                        .help("select columns of a table"),
                ),
            }
        }
    }

    /// The one table all columns come from.
    fn primary(&mut self, select: &Select, columns: &[(OutputColumn, Vec<Node>)]) -> Option<usize> {
        let mut nodes: Vec<Node> = columns.iter().flat_map(|(_, nodes)| nodes.iter().copied()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if let [Node::Table(table)] = nodes.as_slice() {
            return Some(*table);
        }
        let message =
            if nodes.is_empty() { "no column comes from a table" } else { "the columns come from several tables" };
        let problem = Problem::new("result_table_invalid", message, select.position)
            .help("select columns of one table; others can be joined in WHERE. With several tables write table.*");
        self.problems.push(problem);
        None
    }
}

fn item_name(item: &FromItem) -> Option<Name> {
    match (&item.alias, &item.source) {
        (Some(alias), _) => Some(alias.clone()),
        (None, Source::Table { name, .. } | Source::Function { name, .. }) => Some(name.clone()),
        (None, Source::Select(_)) => None,
    }
}

fn same_name(one: &Name, other: &Name) -> bool {
    one.text.to_lowercase() == other.text.to_lowercase()
}
