//! `--route`: where keys go, as this configuration places them. Asks nobody.

use std::fmt::Write;

use crate::config::{Config, Distribution, ServerSpec};
use crate::proxy::Routes;

/// One line for each key and pool.
pub fn lines(pools: &[Config], keys: &[String]) -> String {
    let placed: Vec<(&Config, Routes)> =
        pools.iter().map(|pool| (pool, Routes::new(pool))).collect();
    let mut text = String::new();
    for key in keys {
        for (pool, routes) in &placed {
            line(&mut text, key, pool, routes);
        }
    }
    text
}

fn line(text: &mut String, key: &str, pool: &Config, routes: &Routes) {
    let name = pool.pool.as_deref().unwrap_or("-");
    let route = routes.of(key.as_bytes());
    let hash = routes.placing_hash(key.as_bytes());
    // Writing to a String does not fail.
    let _ = write!(text, "key={key} pool={name}");
    if pool.distribution == Distribution::Random {
        text.push_str(" primary=any");
    } else {
        let _ = write!(text, " hash={hash}");
        let all: Vec<&ServerSpec> = pool.servers.iter().chain(&pool.backups).collect();
        let called = |server: usize| match &all[server].name {
            Some(name) => format!("{}({name})", all[server].address()),
            None => all[server].address(),
        };
        let _ = write!(text, " primary={}", called(usize::from(route.primary())));
        let others = (1..routes.places()).filter_map(|rank| routes.server(route, rank));
        let others: Vec<String> = others.map(called).collect();
        if !others.is_empty() {
            let what = if routes.ejects() {
                "stand-ins"
            } else {
                "backups"
            };
            let _ = write!(text, " {what}={}", others.join(","));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    #[test]
    fn each_key_in_each_pool() {
        let text = "a:\n  listen: x:1\n  servers: [s:1:1 one, s:2:1]\n  backups: [b:1, b:2]\n  hash: crc32a\n  distribution: modula\n\
                    b:\n  listen: x:2\n  servers: [s:1:1, s:2:1]\n  auto_eject_hosts: true\n  hash_tag: '{}'\n\
                    c:\n  listen: x:3\n  servers: [s:1:1]\n  distribution: random\n";
        let pools = file::parse(text.as_bytes(), &Config::default()).unwrap();
        let lines = lines(&pools, &["k{1}".into(), "1".into()]);
        let expect = "\
key=k{1} pool=a hash=2100175516 primary=s:1(one) backups=b:1,b:2
key=k{1} pool=b hash=2248252156 primary=s:1 stand-ins=s:2
key=k{1} pool=c primary=any
key=1 pool=a hash=2212294583 primary=s:2 backups=b:2,b:1
key=1 pool=b hash=2248252156 primary=s:1 stand-ins=s:2
key=1 pool=c primary=any
";
        assert_eq!(lines, expect);
    }
}
