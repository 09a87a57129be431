.PHONY: check test test-all docs

check:  ## style, types and spelling
	ruff check .
	ruff format --check .
	mypy
	codespell

test:  ## what CI runs
	pytest

test-all:  ## also the slow tests, and those for a GPU where there is one
	pytest -m ""

docs:  ## every example of the documents runs, every command parses, every link leads somewhere
	pytest tests/unit/test_docs.py
