"""
Objects to policies: `compile_index` joins what the index knows to one Policy for each class of pods and a verdict on
each object. Pure; the same code serves the operator, `spendmesh run` and `spendmesh check`.
"""

from spendmesh_operator.compile.compiler import Compiled as Compiled, compile_index as compile_index
from spendmesh_operator.compile.model import (
    ClassKey as ClassKey,
    CompiledPolicy as CompiledPolicy,
    CompileSettings as CompileSettings,
    Finding as Finding,
    SecretNeed as SecretNeed,
    Verdict as Verdict,
)
from spendmesh_operator.compile.verdicts import NEVER_VALID as NEVER_VALID
