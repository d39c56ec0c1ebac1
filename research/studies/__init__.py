"""Tables of single experiments."""

from research.studies.confusions import commonest_errors as commonest_errors
from research.studies.confusions import count_confusions as count_confusions
from research.studies.confusions import recalls as recalls
from research.studies.regime_tables import regime_tables as regime_tables
