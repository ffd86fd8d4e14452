"""Tools that nobody here wrote: which function of which package, called how, under which rules.

A row is data. `tool`, `call` and `seen` are Python texts, evaluated in the namespace of `module`,
where `here` is the path of the row's folder; so a row reads as its user would write it, and nothing
of a package is imported before its row runs. The folder holds what `WORLD` lists, anew for each
call, and is the working directory.

Formatted by hand: a row is a line where that is possible.
"""
# fmt: off

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["ENVIRONMENT", "ROWS", "WORLD", "Row"]

WORLD = {
    "people.csv": "name,age,city\nAda,36,London\nGrace,85,New York\nAlan,41,Wilmslow\n",
    "notes.txt": "alpha\nbeta\ngamma: 3\ndelta\n",
    "data.json": '[{"name": "Ada", "langs": ["en", "fr"]}, {"name": "Grace", "langs": ["en"]}]',
    "page.html": "<html><head><title>T</title></head><body><h1>Hi</h1><p>One <b>two</b></p></body>",
    "tool.py": "import math\n\n\ndef area(r):\n    return math.pi * r**2\n\n\nvalue = area(2)\n",
    "guide.md": "# One\n\nFirst part.\n\n## Two\n\nSecond part, with `code`.\n\n```py\nx = 1\n```\n",
    "edges.txt": "1 2\n2 3\n",
    "sub/inner.txt": "inside\n",
}
# What the host's environment has besides; no row may see it without a rule.
ENVIRONMENT = {"OPENAI_API_KEY": "sk-not-a-key", "GROQ_API_KEY": "gsk-not-a-key", "EDITOR_NAME": "vi"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tool of one package.

    `rules` are policy keywords, with `{here}` for the row's folder; `why` says what they are for.
    `uses` are imports of what the arguments are made of, `seen` is what is compared of the value
    `it` where parts of it differ from call to call. `differs` is the start of what a sandboxed call
    gives instead (`"TypeName: message"` or the repr of a value), `because` says why that is so;
    `by_value` is the same for a package whose code was copied into the project.
    """

    package: str = ""
    module: str = ""
    tool: str
    call: str
    rules: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    uses: str = ""
    seen: str = "it"
    differs: str = ""
    because: str = ""
    by_value: str = ""

    @property
    def name(self) -> str:
        """Return how tests call it."""
        return f"{self.package}:{self.tool}{self.call}"


def _of(package: str, module: str, *rows: Row) -> tuple[Row, ...]:
    return tuple(replace(row, package=package, module=module) for row in rows)


def _row(tool: str, call: str = "()", **more: Any) -> Row:
    return Row(tool=tool, call=call, **more)


def _reads(tool: str, call: str = "()", **more: Any) -> Row:
    return Row(tool=tool, call=call, rules={"read": ["{here}"]}, why="reads files", **more)


def _writes(tool: str, call: str = "()", **more: Any) -> Row:
    return Row(tool=tool, call=call, rules={"write": ["{here}"]}, why="writes files", **more)


def _needs_key(tool: str, call: str, *names: str, **more: Any) -> Row:
    why = "its module makes a client when it is imported, and that wants a key"
    return Row(tool=tool, call=call, rules={"env": list(names)}, why=why, **more)


_ITERATOR = {
    "differs": "RemoteError: agentsbx.errors.SerializationError: return value: a builtins.",
    "because": "returns an iterator without being a generator function",
}
_NO_NAME = {
    "differs": "ResultError: the result could not be decoded: it holds a ",
    "because": "returns a class of its own that no annotation names",
}
_DEPS = "from types import SimpleNamespace as Context"
_REPOSITORY = "from foreign.stand_ins import repository"
_DOCUMENT = "from haystack import Document"
_DRIVER = "from griptape.drivers.file_manager.local import LocalFileManagerDriver as Driver"
_BASE = "its annotation names a base class, what it returns derives from it"

ROWS: tuple[Row, ...] = (
    *_of(
        "more-itertools", "more_itertools",
        _row("collapse", "([[1, [2, 3]], [4]])"),
        _row("windowed", "([1, 2, 3, 4], 3)"),
        _row("set_partitions", "([1, 2, 3], 2)"),
        _row("split_at", "('abcdcba', lambda c: c == 'b')"),
        _row("unique_everseen", "('AAAABBBCCDAABBB')"),
        _row("sieve", "(50)"),
        _row("one", "([1, 2])"),
        _row("map_reduce", "('abbccc', lambda c: c, lambda c: 1, sum)"),
        _row("polynomial_from_roots", "([5, -4, 3])"),
        _row("strictly_n", "(['a', 'b'], 3)"),
        _row("chunked", "([1, 2, 3, 4, 5], 2)", **_ITERATOR),
        _row("distinct_permutations", "([1, 0, 1])", **_ITERATOR),
        _row("peekable", "([1, 2])", differs="TypeError: sandbox() decorates functions, not classes",
             because="is a class"),
    ),
    *_of(
        "toolz", "toolz",
        _row("groupby", "(len, ['cat', 'mouse', 'dog'])"),
        _row("curry(sorted)", "([3, 1, 2])",
             by_value="TypeError: module attribute toolz.functoolz.flip was asked for while"),
        _row("compose(str, len)", "('four')"),
        _row("merge_with", "(sum, {'a': 1}, {'a': 2, 'b': 3})"),
        _row("partition_all", "(2, [1, 2, 3])"),
        _row("update_in", "({'a': {'b': 1}}, ['a', 'b'], lambda x: x + 1)"),
        _row("get_in", "(['a', 'z'], {'a': {}}, no_default=True)"),
        _row("memoize(sum)", "((1, 2, 3))"),
        _row("pluck", "('name', [{'name': 'Ada'}, {'name': 'Alan'}])", **_ITERATOR),
        _row("compose", "(str, len)",
             differs="RemoteError: agentsbx.errors.SerializationError: return value.first: a builtins",
             because="returns functions"),
    ),
    *_of(
        "smolagents", "smolagents",
        _row("PythonInterpreterTool().forward", "('import math\\nprint(3)\\nmath.sqrt(16)')"),
        _row("PythonInterpreterTool()", "('sum(range(10))')"),
        _row("PythonInterpreterTool().forward", "('import os')", seen="type(it), len(it.args)"),
        _row("LocalPythonExecutor([])", "('a = 2 ** 10\\na')"),
        _row("FinalAnswerTool().forward", "({'answer': [1, 2]})"),
        _row("utils.parse_code_blobs", "('<code>\\nx = 1\\n</code>', ('<code>', '</code>'))"),
        _row("utils.parse_json_blob", "('Thought {\"a\": 1}')"),
        _row("utils.truncate_content", "('x' * 100, 10)"),
    ),
    *_of(
        "agno", "agno.tools.calculator",
        _row("CalculatorTools().add", "(2, 3)"),
        _row("CalculatorTools().factorial", "(20)"),
        _row("CalculatorTools().divide", "(1, 0)"),
        _row("CalculatorTools().exponentiate", "(10, 400)"),
    ),
    *_of(
        "agno", "agno.tools.file.file",
        _reads("FileTools(base_dir=here).read_file", "('notes.txt')"),
        _reads("FileTools(base_dir=here).list_files"),
        _reads("FileTools(base_dir=here).search_content", "('gamma')"),
        _writes("FileTools(base_dir=here).save_file", "('hello', 'new.txt')"),
        _writes("FileTools(base_dir=here).delete_file", "('notes.txt')"),
    ),
    *_of(
        "agno", "agno.tools.csv_toolkit",
        _reads("CsvTools(csvs=[here / 'people.csv']).read_csv_file", "('people')"),
        _reads("CsvTools(csvs=[here / 'people.csv']).get_columns", "('people')"),
    ),
    *_of(
        "agno", "agno.tools.python",
        _row("PythonTools(base_dir=here).run_python_code", "('x = 6 * 7', 'x')"),
        _reads("PythonTools(base_dir=here).run_python_file_return_variable", "('tool.py', 'value')"),
    ),
    *_of(
        "agno", "agno.tools.shell",
        _reads("ShellTools(base_dir=here).run_shell_command", "(['ls', '-1'])"),
    ),
    *_of(
        "strands-agents-tools", "strands_tools.calculator",
        _row("calculator", "('2 * sin(pi/4) + log(e**2)')"),
        _row("calculator", "('x**2 - 4', mode='solve')"),
        _row("calculator", "('sin(x)/x', mode='limit', wrt='x', point='0')"),
        _row("calculator", "('__import__(\"os\")')"),
        _row("solve_equation", "(parse_expression('x**2 - 9'), 5)"),
    ),
    *_of(
        "strands-agents-tools", "strands_tools.file_read",
        _reads("file_read",
               "({'toolUseId': 't', 'input': {'path': str(here / 'notes.txt'), 'mode': 'view'}})"),
        _reads("create_diff", "(str(here / 'notes.txt'), str(here / 'guide.md'))"),
        _reads("search_file", "(Console(), str(here / 'notes.txt'), 'gamma')",
               differs="SerializationError: argument 'console'._lock (_thread.RLock) cannot cross",
               because="takes a console, which holds a lock"),
    ),
    *_of(
        "strands-agents-tools", "strands_tools.editor",
        _reads("editor", "(command='view', path=str(here / 'notes.txt'))"),
    ),
    *_of(
        "strands-agents-tools", "strands_tools.journal",
        _writes("journal", "({'toolUseId': 't', 'input': {'action': 'write', 'content': 'done'}})"),
        _row("journal", "({'toolUseId': 't', 'input': {'action': 'write', 'content': 'done'}})",
             differs="{'toolUseId': 't', 'status': 'error', 'content': [{'text': \"Error: [Errno 30]",
             because="writes below the working directory, which no rule allows here"),
    ),
    *_of(
        "strands-agents-tools", "strands_tools.environment",
        _row("environment", "({'toolUseId': 't', 'input': {'action': 'get', 'name': 'EDITOR_NAME'}})",
             rules={"env": ["EDITOR_NAME"]}, why="shows a variable"),
        _row("environment", "({'toolUseId': 't', 'input': {'action': 'get', 'name': 'EDITOR_NAME'}})",
             differs="{'toolUseId': 't', 'status': 'error', 'content': [{'text': 'Environment variable",
             because="shows a variable, which no rule allows here"),
    ),
    *_of(
        "sqlite-utils", "sqlite_utils.recipes",
        _row("parsedate", "('3rd March 2024')"),
        _row("parsedatetime", "('2024-03-01 10:00')"),
        _row("jsonsplit", "('1, 2, 3', type=int)"),
        _row("parsedate", "('not a date')"),
    ),
    *_of(
        "sqlite-utils", "sqlite_utils.utils",
        _row("hash_record", "({'a': 1})"),
        _row("flatten", "({'a': {'b': 1, 'c': {'d': 2}}})"),
        _row("dedupe_keys", "(['a', 'a', 'b'])"),
        _row("rows_from_file", "(BytesIO(b'a,b\\n1,2\\n'))", uses="from io import BytesIO",
             differs="RemoteError: agentsbx.errors.SerializationError: return value[0]: a builtins.gen",
             because="returns an iterator in a tuple"),
        _row("suggest_column_types", "([{'a': 1, 'b': 'x'}])",
             differs="RemoteError: agentsbx.errors.SerializationError: return value['a']: a builtins.t",
             because="returns types"),
    ),
    *_of(
        "sqlite-utils", "sqlite_utils",
        _row("Database(memory=True).query", "('select 1 as one')",
             differs="SerializationError: self.conn (sqlite3.Connection) cannot cross",
             because="holds an open database"),
    ),
    *_of(
        "mcp-server-time", "mcp_server_time.server",
        _row("TimeServer().convert_time", "('Europe/London', '12:00', 'Asia/Tokyo')"),
        _row("TimeServer().convert_time", "('Nowhere/City', '12:00', 'Asia/Tokyo')"),
        _row("TimeServer().convert_time", "('Europe/London', 'noon', 'Asia/Tokyo')"),
        _row("get_zoneinfo", "('Asia/Kathmandu')"),
        _row("known_timezones"),
    ),
    *_of(
        "mcp-server-git", "mcp_server_git.server",
        _reads("git_status", "(repository(here))", uses=_REPOSITORY),
        _reads("git_diff_unstaged", "(repository(here))", uses=_REPOSITORY),
        _reads("git_log", "(repository(here), 1)", uses=_REPOSITORY),
        _writes("git_add", "(repository(here), ['notes.txt'])", uses=_REPOSITORY),
        _row("validate_repo_path", "(here / 'x', here / 'sub')"),
    ),
    *_of(
        "langchain-community", "langchain_community.tools",
        _reads("ReadFileTool(root_dir=str(here)).run", "({'file_path': 'notes.txt'})"),
        _reads("ReadFileTool(root_dir=str(here)).invoke", "({'file_path': 'notes.txt'})"),
        _reads("ReadFileTool(root_dir=str(here)).ainvoke", "({'file_path': 'notes.txt'})"),
        _reads("ListDirectoryTool(root_dir=str(here)).run", "({})", seen="sorted(it.split())"),
        _reads("FileSearchTool(root_dir=str(here)).run", "({'pattern': '*.md'})"),
        _writes("WriteFileTool(root_dir=str(here)).run", "({'file_path': 'n.txt', 'text': 'x'})"),
        _writes("CopyFileTool(root_dir=str(here)).run",
                "({'source_path': 'notes.txt', 'destination_path': 'c.txt'})"),
        _writes("MoveFileTool(root_dir=str(here)).run",
                "({'source_path': 'notes.txt', 'destination_path': 'm.txt'})"),
        _writes("DeleteFileTool(root_dir=str(here)).run", "({'file_path': 'notes.txt'})"),
        _row("ReadFileTool(root_dir=str(here)).run", "({'file_path': '../../etc/passwd'})"),
    ),
    *_of(
        "langchain-community", "langchain_community.document_loaders",
        _reads("CSVLoader(here / 'people.csv').load"),
        _reads("TextLoader(here / 'notes.txt').load"),
        _reads("TextLoader(here / 'notes.txt').lazy_load"),
        _reads("PythonLoader(str(here / 'tool.py')).load"),
    ),
    *_of(
        "langchain-community", "langchain_community.tools.json.tool",
        _row("JsonGetValueTool(spec=JsonSpec(dict_={'a': [1, 2]})).run", "('data[\"a\"][1]')"),
        _row("JsonListKeysTool(spec=JsonSpec(dict_={'a': [1, 2]})).run", "('data')"),
    ),
    *_of(
        "langchain-text-splitters", "langchain_text_splitters",
        _row("CharacterTextSplitter(separator=' ', chunk_size=8, chunk_overlap=0).split_text",
             "('one two three four')"),
        _row("RecursiveCharacterTextSplitter(chunk_size=20, chunk_overlap=4).create_documents",
             "(['A sentence here. Another there.\\n\\nA paragraph.'])"),
        _row("MarkdownHeaderTextSplitter([('#', 'h1'), ('##', 'h2')]).split_text",
             "('# A\\ntext\\n## B\\nmore')"),
        _row("RecursiveJsonSplitter(max_chunk_size=30).split_json",
             "({'a': {'b': 'x' * 10, 'c': 'y' * 10}, 'd': [1, 2, 3]})"),
        _row("PythonCodeTextSplitter(chunk_size=30, chunk_overlap=0).split_text",
             "('def a():\\n    return 1\\n\\ndef b():\\n    return 2\\n')"),
    ),
    *_of(
        "llama-index-core", "llama_index.core",
        _reads("SimpleDirectoryReader(str(here)).load_data", seen="[d.text for d in it]"),
    ),
    *_of(
        "llama-index-core", "llama_index.core.node_parser",
        _row("TokenTextSplitter(chunk_size=9, chunk_overlap=0, tokenizer=str.split).split_text",
             "('One sentence. Two sentences here. ' * 8)", differs="['One sentence. Two sentences here. One'",
             because="its `__getstate__` drops a tokenizer that is no plain function, with a warning"),
        _row("MarkdownNodeParser().get_nodes_from_documents", "([Document(text='# A\\nx\\n# B\\ny')])",
             uses="from llama_index.core import Document",
             differs="ResultError: the result could not be decoded: it holds a 'llama_index", because=_BASE),
    ),
    *_of(
        "llama-index-core", "llama_index.core.tools",
        _row("FunctionTool.from_defaults(fn=mean)", "([1, 2, 3])", uses="from statistics import mean"),
        _row("FunctionTool.from_defaults(fn=mean).call", "(data=[])", uses="from statistics import mean"),
    ),
    *_of(
        "griptape", "griptape.tools",
        _row("CalculatorTool().calculate", "({'values': {'expression': '3 * (4 + 5)'}})",
             differs="ResultError: the result could not be decoded: it holds a 'griptape", because=_BASE),
        _row("DateTimeTool().get_relative_datetime",
             "({'values': {'relative_date_string': '2024-01-01'}})", differs="ResultError: the result could not be decoded: it holds a 'griptape", because=_BASE),
        _row("DateTimeTool().get_datetime_diff",
             "({'values': {'start_datetime': '2024-01-01', 'end_datetime': '2024-03-01'}})",
             differs="ResultError: the result could not be decoded: it holds a 'griptape", because=_BASE),
        _reads("FileManagerTool(file_manager_driver=Driver(workdir=str(here))).list_files_from_disk",
               "({'values': {'path': '.'}})", uses=_DRIVER,
               differs="SerializationError: self.loaders['application/pdf']._futures_executor",
               because="holds a thread pool"),
    ),
    *_of(
        "haystack-ai", "haystack.components.preprocessors",
        _row("DocumentCleaner().run", "([Document(content='a  \\n\\n\\n b')])", uses=_DOCUMENT),
        _row("DocumentSplitter(split_by='word', split_length=2).run",
             "([Document(content='one two three')])", uses=_DOCUMENT),
        _row("TextCleaner(convert_to_lowercase=True).run", "(['Hello, World'])"),
    ),
    *_of(
        "haystack-ai", "haystack.components.converters",
        _reads("TextFileToDocument().run", "([here / 'notes.txt'])"),
        _reads("CSVToDocument().run", "([here / 'people.csv'])", **_NO_NAME),
        _row("OutputAdapter(template='{{ x | length }}', output_type=int).run", "(x=[1, 2])"),
    ),
    *_of(
        "pydantic-ai-examples", "pydantic_ai_examples.roulette_wheel",
        _needs_key("roulette_wheel", "(Context(deps=Deps(18)), 18)", "GROQ_API_KEY", uses=_DEPS),
        _row("roulette_wheel", "(Context(deps=Deps(18)), 18)", uses=_DEPS,
             differs="RemoteError: pydantic_ai.exceptions.UserError: Set the `GROQ_API_KEY` environment",
             because="its module makes a client when it is imported, and no rule shows it the key"),
    ),
    *_of(
        "pydantic-ai-examples", "pydantic_ai_examples.bank_support",
        _needs_key("customer_balance", "(Context(deps=Context(customer_id=1, db=Balance())))",
                   "OPENAI_API_KEY", uses=f"{_DEPS}\nfrom foreign.stand_ins import Balance"),
    ),
    *_of(
        "pydantic-ai-examples", "pydantic_ai_examples.ag_ui.api.agentic_generative_ui",
        _needs_key("create_plan", "(['one', 'two'])", "OPENAI_API_KEY"),
    ),
    *_of(
        "openai-agents", "agents",
        _row("apply_diff", "('a\\nb\\nc\\n', ' a\\n-b\\n+B\\n c\\n')"),
        _row("apply_diff", "('a\\n', ' nothing like it\\n-b\\n')"),
        _row("strict_schema.ensure_strict_json_schema",
             "({'type': 'object', 'properties': {'a': {'type': 'string'}}})"),
        _row("function_schema.generate_func_documentation", "(apply_diff)"),
    ),
    *_of(
        "networkx", "networkx",
        _row("shortest_path", "(path_graph(5), 0, 4)"),
        _row("pagerank", "(karate_club_graph())"),
        _row("shortest_path", "(Graph([(1, 2), (3, 4)]), 1, 4)"),
        _row("connected_components", "(Graph([(1, 2), (3, 4)]))", **_ITERATOR),
        _reads("read_edgelist", "(here / 'edges.txt')", **_NO_NAME),
    ),
    *_of(
        "scikit-learn", "sklearn.metrics",
        _row("accuracy_score", "([0, 1, 1], [0, 1, 0])"),
        _row("confusion_matrix", "([0, 1, 1], [0, 1, 0])"),
        _row("classification_report", "([0, 1, 1], [0, 1, 0])"),
        _row("f1_score", "([0, 1], [0, 1, 0])"),
    ),
    *_of(
        "scikit-learn", "sklearn.datasets",
        _row("load_iris", "(return_X_y=True)"),
        _row("make_moons", "(20, random_state=3)"),
        _row("load_iris", **_NO_NAME),
    ),
    *_of(
        "sympy", "sympy",
        _row("factorint", "(123456)"),
        _row("latex", "(sympify('x**2 / 3'))"),
        _row("sympify", "('2*x +')"),
        _row("diff", "(sympify('sin(x)*x'), symbols('x'))", **_NO_NAME),
    ),
)
