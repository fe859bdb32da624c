"""What a page says in words is what the figures say."""

from mien.report.explain import group_name, summary


def intervals(groups):
    figure = {"value": 0.71, "low": 0.61, "high": 0.81, "n": 80}
    age = {"mae": figure, "coverage90": figure, "width90": figure, "undercovered": [], "groups": {"gender": groups}}
    return next(line for line in summary({"age": age}) if "intervals" in line)


def test_groups_are_said_to_be_covered_only_where_one_was_tested():
    assert "No group" not in intervals({"Male": {"n": 40}, "Female": {"n": 40}})
    assert "No group of 100 or more" in intervals({"Male": {"n": 400, "undercovered": False}, "Female": {"n": 40}})


def test_groups_are_named_as_people_say_them() -> None:
    assert group_name("age_bin: 0-9") == "age 0-9"
    assert group_name("gender x age_bin: Male x 10-19") == "Male × 10-19"
