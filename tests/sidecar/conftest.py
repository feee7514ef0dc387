"""A governed call with every part real: stand-in provider, control server with its books, sidecar, official SDKs."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web

from spendmesh_operator.clock import SystemClock
from spendmesh_operator.compile import CompileSettings, Compiled, compile_index
from spendmesh_operator.control.auth import PodIdentity, StaticTokens
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.server import ControlParts, control_app
from spendmesh_operator.index import Index
from spendmesh_operator.ledger.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.sqlite import SQLiteStore
from spendmesh_operator.prices import load_prices
