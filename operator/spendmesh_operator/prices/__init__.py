"""
The built-in price table. `load_prices` reads what is committed in `data/prices.json`.

That file is made by `python -m spendmesh_operator.prices [--check] OUT`; what makes it (`genai`, `names`, `limits`) is
never imported at run time.
"""

from spendmesh_operator.prices.table import (
    BuiltInPrices as BuiltInPrices,
    PriceDataError as PriceDataError,
    load_prices as load_prices,
    load_table as load_table,
    subset as subset,
)
