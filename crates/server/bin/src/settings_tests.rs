use super::*;

fn resolve(mode: Mode, flags: &Flags, text: &str) -> Result<Settings> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("hodei.toml"), text).expect("written");
    let environment = Environment {
        data_dir: Some(folder.path().to_owned()),
        ..Environment::default()
    };
    Settings::resolve(mode, flags, &environment)
}

#[test]
fn without_anything_the_defaults_hold() {
    let environment = Environment {
        home: Some("/home/ada".into()),
        ..Environment::default()
    };
    let settings = Settings::resolve(Mode::Dev, &Flags::default(), &environment).expect("valid");
    assert_eq!(settings.data_dir, Path::new("/home/ada/.local/share/hodei"));
    assert_eq!(settings.listen.to_string(), "127.0.0.1:7420");
    assert_eq!(settings.worker_listen.to_string(), "127.0.0.1:7421");
    assert_eq!(settings.admin_token_file, settings.data_dir.join("admin.token"));
    assert_eq!(settings.providers[0].id.as_str(), "local");
    let days = |retention: Retention| [retention.jobs, retention.output].map(|age| age.as_secs() / 86_400);
    assert_eq!(days(settings.retention), [90, 7]);
    let server = Settings::resolve(Mode::Server, &Flags::default(), &environment).expect("valid");
    assert!(server.providers.is_empty());
    assert_eq!(days(server.retention), [90, 30]);
    let local = Settings::resolve(Mode::Local, &Flags::default(), &environment).expect("valid");
    assert_eq!((local.listen.port(), local.worker_listen.port()), (0, 0));
    for (environment, want) in [
        (
            Environment {
                root: true,
                ..environment.clone()
            },
            "/var/lib/hodei",
        ),
        (
            Environment {
                xdg_data_home: Some("/x".into()),
                ..environment.clone()
            },
            "/x/hodei",
        ),
        (
            Environment {
                xdg_data_home: Some("x".into()),
                ..environment.clone()
            },
            "/home/ada/.local/share/hodei",
        ),
        (
            Environment {
                data_dir: Some("/d".into()),
                root: true,
                ..environment
            },
            "/d",
        ),
    ] {
        assert_eq!(environment.data_dir_or_default(None), Path::new(want));
        assert_eq!(
            environment.data_dir_or_default(Some("/flag".into())),
            Path::new("/flag")
        );
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let text = "listen = \"0.0.0.0:1\"\nworker_listen = \"192.0.2.7:2\"\n";
    let flags = Flags {
        listen: Some("localhost:3".into()),
        ..Flags::default()
    };
    let settings = resolve(Mode::Server, &flags, text).expect("valid");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:3");
    assert_eq!(settings.worker_listen.to_string(), "192.0.2.7:2");
    let local = resolve(Mode::Local, &Flags::default(), text).expect("the file is not read");
    assert_eq!(local.listen.port(), 0);
}

#[test]
fn a_commands_own_server_takes_only_the_providers_of_the_file_that_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.toml");
    let text = "data_dir = \"/elsewhere\"\nlisten = \"0.0.0.0:1\"\nadmin_token_file = \"/t\"\n\
                [[provider]]\nid = \"small\"\nkind = \"process\"\ncapacity = { cpus = 1 }\n";
    std::fs::write(&path, text).expect("written");
    let by_variable = Environment {
        config: Some(path.clone()),
        data_dir: Some(folder.path().to_owned()),
        ..Environment::default()
    };
    let by_flag = Flags {
        config: Some(path.clone()),
        ..Flags::default()
    };
    for (flags, environment) in [
        (Flags::default(), by_variable.clone()),
        (
            by_flag,
            Environment {
                config: Some("/nowhere".into()),
                ..by_variable.clone()
            },
        ),
    ] {
        let settings = Settings::resolve(Mode::Local, &flags, &environment).expect("valid");
        assert_eq!(settings.providers[0].id.as_str(), "small");
        assert_eq!(settings.providers[0].cpu_millis, Some(1_000));
        assert_eq!(settings.listen.to_string(), "127.0.0.1:0");
        assert_eq!(settings.data_dir, folder.path());
        assert_eq!(settings.admin_token_file, folder.path().join("admin.token"));
    }
    std::fs::write(&path, "provder = 1\n").expect("written");
    let error = Settings::resolve(Mode::Local, &Flags::default(), &by_variable).expect_err("refused");
    assert!(format!("{error:#}").contains("mine.toml:1:1:"), "{error:#}");
}

#[test]
fn errors_name_file_line_and_column() {
    for (text, place, what) in [
        (
            "listen = \"x\"\nlisen = 1\n",
            "hodei.toml:2:1:",
            "unknown field `lisen`",
        ),
        (
            "[[provider]]\nid = \"a\"\nkind = \"docker\"\n",
            "hodei.toml:3:8:",
            "kind `docker` is not in this release",
        ),
        (
            "[[provider]]\nid = \"A_B\"\nkind = \"process\"\n",
            "hodei.toml:2:6:",
            "is not a name",
        ),
        (
            "[[provider]]\nid = \"a\"\nkind = \"process\"\ncapacity = { memory = \"much\" }\n",
            "hodei.toml:4:23:",
            "is not a size",
        ),
        (
            "[tls]\ncert_file = \"a\"\n",
            "hodei.toml:1:1:",
            "missing field `key_file`",
        ),
        (
            "[retention]\noutput = \"59m\"\n",
            "hodei.toml:2:10:",
            "`59m` is shorter than 1h",
        ),
        (
            "[retention]\njob = \"90d\"\n",
            "hodei.toml:2:1:",
            "unknown field `job`",
        ),
        ("listen = [\n", "hodei.toml:", ""),
    ] {
        let error = format!(
            "{:#}",
            resolve(Mode::Server, &Flags::default(), text).expect_err("refused")
        );
        assert!(error.contains(place) && error.contains(what), "{error}");
    }
    for (text, what) in [
        (
            "listen = \"everywhere\"",
            "listen: `everywhere` is not an address",
        ),
        ("worker_advertise = [\"host:1\"]", "is not an address by number"),
        ("worker_advertise = [\"0.0.0.0:1\"]", "nobody can connect"),
        ("data_dir = \"x\"", ""),
    ] {
        let result = resolve(Mode::Server, &Flags::default(), text);
        if what.is_empty() {
            // HODEI_DATA_DIR wins over the file.
            assert!(result.expect("valid").data_dir.is_absolute());
        } else {
            let error = format!("{:#}", result.expect_err("refused"));
            assert!(error.contains(what), "{error}");
        }
    }
    let missing = Flags {
        config: Some("/nowhere/hodei.toml".into()),
        ..Flags::default()
    };
    let error = format!("{:#}", resolve(Mode::Server, &missing, "").expect_err("refused"));
    assert!(error.contains("/nowhere/hodei.toml can not be read"), "{error}");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = r#"
        public_names = ["jobs.example"]
        worker_advertise = ["192.0.2.7:7421"]
        [retention]
        jobs = "36h"
        [tls]
        cert_file = "/etc/hodei/\"odd\".pem"
        key_file = "/etc/hodei/key.pem"
        [[provider]]
        id = "big"
        kind = "process"
        labels = { zone = "a", "x/y" = "z" }
        capacity = { cpus = 1.5, memory = "16GiB", workers = 20 }
        [[provider]]
        id = "all"
        kind = "process"
    "#;
    let settings = resolve(Mode::Server, &Flags::default(), text).expect("valid");
    assert_eq!(settings.providers[1].cpu_millis, Some(1_500));
    assert_eq!(settings.providers[1].memory_bytes, Some(16 << 30));
    assert_eq!(
        (
            settings.providers[0].cpu_millis,
            settings.providers[0].max_workers
        ),
        (None, 256)
    );
    let hours = [settings.retention.jobs, settings.retention.output].map(|age| age.as_secs() / 3_600);
    assert_eq!(hours, [36, 30 * 24]);
    let printed = settings.print();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("printed.toml");
    std::fs::write(&path, &printed).expect("written");
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let again = Settings::resolve(Mode::Server, &flags, &Environment::default()).expect(&printed);
    assert_eq!(again, settings);
}
