"""The check of a number that rules and schedules share, under the name that it has always had here."""

from research.checks import check_number as check_number
