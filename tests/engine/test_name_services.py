from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.name_services import DEFAULT_NAME_SERVICES, NameServices, parse_name_services


def services(hosts_file=True, per_family=True, multicast=False, searches=True):
    return NameServices(hosts_file=hosts_file, per_family=per_family, multicast=multicast, searches=searches)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("files dns", services()),
        ("  files\tdns  # dns files", services()),
        ("files dns myhostname", services()),
        ("mymachines resolve [!UNAVAIL=return] files myhostname dns", services()),
        ("files mdns4_minimal [NOTFOUND=return] dns", services(multicast=True)),
        ("files mdns4 dns", services(per_family=False)),
        ("files", services(searches=False)),
        ("dns", services(hosts_file=False)),
        ("dns files", services(hosts_file=False, per_family=False)),
        ("myhostname files dns", services(hosts_file=False, per_family=False)),
        ("files sss dns", services(per_family=False)),
        ("files [SUCCESS=merge] dns", services(hosts_file=False, per_family=False)),
        ("files [ success = Continue ] dns", services(hosts_file=False, per_family=False)),
        ("files[NOTFOUND=continue]dns", services()),
        ("", services(hosts_file=False, searches=False)),
    ],
)
def test_what_a_line_means(line, expected):
    assert parse_name_services(f"passwd: files\nhosts: {line}\nnetworks: dns\n") == expected


def test_the_last_line_counts_and_none_is_files_dns():
    assert parse_name_services("hosts: dns\n#hosts: ldap\nhosts: files dns\nhosts\n") == services()
    assert parse_name_services("") == parse_name_services("passwd: ldap\n") == DEFAULT_NAME_SERVICES == services()


@given(st.text("hosts: filedn[]=#\n!", max_size=60))
def test_any_text_means_something(text):
    assert isinstance(parse_name_services(text), NameServices)
