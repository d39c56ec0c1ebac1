"""Tables of single experiments."""

from research.studies import language_tables as language_tables
from research.studies._regime_tables import regime_tables as regime_tables
from research.studies.confusions import commonest_errors as commonest_errors
from research.studies.confusions import count_confusions as count_confusions
from research.studies.confusions import recalls as recalls
