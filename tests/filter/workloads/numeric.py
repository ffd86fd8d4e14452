"""numpy with BLAS threads, pandas; skipped by exit status 77 where they are missing."""

from __future__ import annotations

import io
import os
import sys

try:
    import numpy as np
    import pandas as pd
except ImportError:
    sys.exit(77)
a = np.random.default_rng(1).random((400, 400))
assert np.allclose(a @ np.linalg.inv(a), np.eye(400), atol=1e-6)
frame = pd.DataFrame({"k": ["a", "b"] * 500, "v": range(1000)})
text = frame.groupby("k").sum().to_csv()
assert pd.read_csv(io.StringIO(text))["v"].sum() == 499500
try:
    import pyarrow as pa
    import pyarrow.parquet as parquet
except ImportError:
    pass
else:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame), sink)
    assert parquet.read_table(io.BytesIO(sink.getvalue())).num_rows == 1000
# pyarrow's threads abort an ordinary exit now and then ("terminate called ..."; 4 of 50 runs on a
# busy machine, with and without a filter).
os._exit(0)
