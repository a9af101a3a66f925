//! The budgets that the configuration sets: of classes, and of rules. Replaced as a whole by a reload; a budget whose limit
//! has not changed goes on, with all that its clients have used.

use super::{
    RateClass,
    budget::{Budget, Ledger},
};
use crate::{
    auth::{Caller, policy},
    config::{Config, LimitRule},
};
use governor::clock::Clock;
use std::sync::Arc;

/// A rule of `rate_limit_overrides`.
pub(super) struct Rule<C: Clock> {
    pub(super) rule: LimitRule,
    pub(super) budget: Option<Arc<Budget<C>>>,
}

impl<C: Clock> Rule<C> {
    /// Whether it means a call of the method `path` by `caller`.
    pub(super) fn means(&self, path: &str, caller: &Caller) -> bool {
        let method = self.rule.methods.as_ref().is_none_or(|methods| methods.matches(path));
        let clients = &self.rule.clients;
        // How far a token reaches is for the policy to say; here it only tells who calls.
        method
            && (clients.is_empty()
                || clients.iter().any(|who| policy::admits(who, &caller.principal, true, caller.user())))
    }
}

/// What is charged.
pub(super) struct Budgets<C: Clock> {
    pub(super) enabled: bool,
    classes: [Option<Arc<Budget<C>>>; RateClass::ALL.len()],
    pub(super) own: Vec<Rule<C>>,
    pub(super) shared: Vec<Rule<C>>,
}

impl<C: Clock> Default for Budgets<C> {
    fn default() -> Self {
        Self { enabled: false, classes: Default::default(), own: Vec::new(), shared: Vec::new() }
    }
}

impl<C: Clock + Clone> Budgets<C> {
    /// Those of `config`; what `self` has of them already goes on.
    pub(super) fn with(&self, config: &Config, ledger: &Ledger<C>) -> Self {
        let classes = RateClass::ALL.map(|class| {
            let (per_minute, burst) = settings(config, class);
            let known = self.class(class).filter(|budget| budget.is_of(per_minute, burst));
            known.cloned().or_else(|| Budget::new(per_minute, burst, ledger).map(Arc::new))
        });
        // Each goes on once, should a rule stand there twice.
        let mut known: Vec<&Rule<C>> = self.own.iter().chain(&self.shared).collect();
        let rules = config.rate_limit_overrides.0.iter().map(|rule| {
            let budget = match known.iter().position(|known| known.rule == *rule) {
                Some(at) => known.swap_remove(at).budget.clone(),
                None => Budget::new(rule.requests, rule.burst.get(), ledger).map(Arc::new),
            };
            Rule { rule: rule.clone(), budget }
        });
        let (shared, own) = rules.partition(|rule| rule.rule.shared);
        Self { enabled: config.rate_limit_enabled, classes, own, shared }
    }

    pub(super) fn class(&self, class: RateClass) -> Option<&Arc<Budget<C>>> {
        self.classes[class as usize].as_ref()
    }

    pub(super) fn has_rules(&self) -> bool {
        !self.own.is_empty() || !self.shared.is_empty()
    }
}

/// Requests a minute and burst of a class.
fn settings(config: &Config, class: RateClass) -> (u32, u32) {
    match class {
        RateClass::Rpc => (config.rate_limit_rpc_requests, config.rate_limit_rpc_burst),
        RateClass::Health => (config.rate_limit_health_requests, config.rate_limit_health_burst),
        RateClass::Metrics => (config.rate_limit_metrics_requests, config.rate_limit_metrics_burst),
        RateClass::Grpc => (config.rate_limit_grpc_requests, config.rate_limit_grpc_burst),
        RateClass::Default => (config.rate_limit_default_requests, config.rate_limit_default_burst),
    }
}
