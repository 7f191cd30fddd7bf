"""The command table. A command's module is imported only when that command runs."""

from __future__ import annotations

import difflib
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from mbpm.output import print_version
from specs.errors import UsageError

if TYPE_CHECKING:
    from mbpm.state import State

GLOBAL_PANEL = "Global options, before or after the command"


class Entry(NamedTuple):
    """One row of the table."""

    module: str
    help: str
    panel: str


_PACKS, _LOOK, _USE = "Change what is installed", "Look", "Use"
_BACK, _PROJECT, _MAKE, _MACHINE = "Go back", "Projects", "Make packs", "This machine"


def _entry(name: str, help: str, panel: str, module: str | None = None) -> tuple[str, Entry]:
    return name, Entry(f"mbpm.commands.{module or name.replace('-', '_')}", help, panel)


COMMANDS = dict(
    [
        _entry("install", "Install packs, and the base they need", _PACKS),
        _entry("remove", "Remove packs; what they took stays until `gc`", _PACKS),
        _entry("purge", "Remove packs and everything of them at once", _PACKS),
        _entry("upgrade", "Upgrade packs; removes nothing", _PACKS),
        _entry("full-upgrade", "Upgrade packs, removing what is in the way", _PACKS),
        _entry("autoremove", "Remove what nothing needs any more", _PACKS),
        _entry("reinstall", "Check packs and fetch what is damaged", _PACKS),
        _entry("repair", "Check everything installed and mend what is damaged", _PACKS),
        _entry("hold", "Keep packs at the version they have", _PACKS),
        _entry("unhold", "Let held packs be upgraded again", _PACKS),
        _entry("pin", "Keep a pack within a range of versions", _PACKS),
        _entry("unpin", "Let pinned packs have any version again", _PACKS),
        _entry("mark", "Mark packs as wanted, or as needed by others only", _PACKS),
        _entry("list", "List what is installed", _LOOK),
        _entry("outdated", "List installed packs that have a newer version", _LOOK),
        _entry("search", "Search the registries for packs", _LOOK),
        _entry("show", "Show one pack: what it does, how well, its files", _LOOK),
        _entry("changelog", "Show what is new in the versions of a pack", _LOOK),
        _entry("why", "Show what needs a pack", _LOOK),
        _entry("tree", "Show what packs need, as a tree", _LOOK),
        _entry("files", "List the files of a pack", _LOOK),
        _entry("owner", "Tell which pack or base a file belongs to", _LOOK),
        _entry("which", "Tell which pack would answer a question", _LOOK),
        _entry("verify", "Check installed packs byte for byte", _LOOK),
        _entry("chat", "Talk with the base and the installed packs", _USE),
        _entry("run", "Answer one question", _USE),
        _entry("history", "List what was changed, and when", _BACK),
        _entry("undo", "Take the last change back", _BACK),
        _entry("redo", "Make the change again that was taken back", _BACK),
        _entry("rollback", "Go back to an earlier generation", _BACK),
        _entry("init", "Begin a project: write mbpm.toml", _PROJECT),
        _entry("add", "Add packs to the project", _PROJECT),
        _entry("drop", "Take packs out of the project", _PROJECT),
        _entry("lock", "Write mbpm.lock: the exact versions of the project", _PROJECT),
        _entry("sync", "Install exactly what the project's lock says", _PROJECT),
        _entry("train", "Train a pack from your own data", _MAKE),
        _entry("data", "Look at training data, split it, fetch a recipe's", _MAKE),
        _entry("eval", "Measure a pack beside its base, or a base alone", _MAKE),
        _entry("recipe", "List recipes, show what one is made of, write one", _MAKE),
        _entry("import", "Make a pack of a PEFT or GGUF adapter", _MAKE, "import_pack"),
        _entry("export", "Write a pack for another program: PEFT, llama.cpp, Ollama", _MAKE),
        _entry("pack", "Check a pack folder and make an archive of it", _MAKE),
        _entry("publish", "Publish a pack folder to a registry", _MAKE),
        _entry("yank", "Hide a published version, or say that it is deprecated", _MAKE),
        _entry("registry", "Add, rank, list, refresh and remove registries", _MACHINE),
        _entry("base", "List, install, publish, remove and verify bases", _MACHINE),
        _entry("profile", "List and remove profiles: installs that share one store", _MACHINE),
        _entry("download", "Fetch packs as archives without installing them", _MACHINE),
        _entry("bundle", "Make one file of packs and base for a machine without network", _MACHINE),
        _entry("gc", "Free the disk of what no generation needs", _MACHINE),
        _entry("clean", "Drop unfinished downloads and cached indexes", _MACHINE),
        _entry("info", "Show home, versions, device, base and disk", _MACHINE),
        _entry("doctor", "Find what is wrong and how to mend it", _MACHINE),
    ]
)


def _set(ctx: typer.Context, **changes: Any) -> None:
    state: State = ctx.obj
    for name, value in changes.items():
        setattr(state, name, value)


def _home(ctx: typer.Context, value: Path | None) -> None:
    if value is not None:
        _set(ctx, home_path=value.expanduser())


def _json(ctx: typer.Context, value: bool) -> None:
    if value:
        ctx.obj.out.mode = "json"


def _quiet(ctx: typer.Context, value: bool) -> None:
    # `--json --quiet` is json: the document was asked for, and nothing else is printed anyway.
    if value and ctx.obj.out.mode != "json":
        ctx.obj.out.mode = "quiet"


def _profile(ctx: typer.Context, value: str | None) -> None:
    if value is not None:
        _set(ctx, profile=value)


def _complete_profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    from mbpm.options import complete_profiles

    return complete_profiles(ctx, incomplete)


def _limit_rate(ctx: typer.Context, value: str | None) -> None:
    if value is not None:
        _set(ctx, limit_rate=value)


def _offline(ctx: typer.Context, value: bool) -> None:
    if value:
        _set(ctx, offline=True)


def _no_color(ctx: typer.Context, value: bool) -> None:
    if value:
        ctx.obj.out.no_color = True


def _option(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=GLOBAL_PANEL, **more)


def _root(
    ctx: typer.Context,
    home: Annotated[
        Path | None,
        _option(
            "--home",
            callback=_home,
            metavar="DIR",
            help="Where packs and bases live (or set `MBPM_HOME`)",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        _option(
            "--profile",
            callback=_profile,
            metavar="NAME",
            autocompletion=_complete_profiles,
            help="Which of the home's profiles to work on (or set `MBPM_PROFILE`)",
        ),
    ] = None,
    json: Annotated[
        bool, _option("--json", callback=_json, help="Print one JSON document")
    ] = False,
    quiet: Annotated[
        bool, _option("--quiet", "-q", callback=_quiet, help="Print errors and answers only")
    ] = False,
    offline: Annotated[
        bool,
        _option("--offline", callback=_offline, help="Touch no network (or set `MBPM_OFFLINE=1`)"),
    ] = False,
    limit_rate: Annotated[
        str | None,
        _option(
            "--limit-rate",
            callback=_limit_rate,
            metavar="RATE",
            help="Download at most so many bytes per second, as `500k` or `2M` "
            "(or set `MBPM_LIMIT_RATE`)",
        ),
    ] = None,
    no_color: Annotated[
        bool, _option("--no-color", callback=_no_color, help="Use no colour (or set `NO_COLOR`)")
    ] = False,
    version: Annotated[bool, _option("--version", "-V", help="Print the version")] = False,
) -> None:
    """A package manager for language-model skills: packs that teach a small local model."""
    if version:
        print_version(ctx.obj.out)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


class _Table(TyperGroup):
    """A group that knows its commands by the table and loads one when it runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help and completion show of a command; `resolve_command` gives the real one."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        return TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command's module and put the global options on it."""
        name = args[0]
        if name not in COMMANDS:
            if ctx.resilient_parsing:
                return None, None, args[1:]
            # its options are not read any more, this one among them
            _json(ctx, "--json" in args)
            raise UsageError(f"there is no command `{name}`", hint=_did_you_mean(name))
        command = load(name)
        shared = [p for p in self.params if getattr(p, "rich_help_panel", None) == GLOBAL_PANEL]
        _share(command, [p for p in shared if isinstance(p, TyperOption)])
        return name, command, args[1:]


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"did you mean `mbpm {close[0]}`?" if close else "`mbpm --help` lists the commands"


def load(name: str) -> Any:
    """The real command of a name in the table, its module imported."""
    entry = COMMANDS[name]
    module = importlib.import_module(entry.module)
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name, help=module.command.__doc__ or entry.help)(module.command)
    command = typer.main.get_command(app)
    command.name = name
    _prepare_help(command)
    return command


def _prepare_help(command: Any) -> None:
    """Make texts written for people who read source fit for Typer's help."""
    # Typer keeps the line breaks of every paragraph but the first
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(p if p.startswith("$ ") else " ".join(p.split()) for p in paragraphs)
    for param in command.params:
        # what stands in brackets would be taken for a style, and vanish
        param.help = (param.help or "").replace("[", r"\[")
        _show_only_metavar(param)
    own_option = command.get_help_option

    def help_option(ctx: Any) -> Any:
        option = own_option(ctx)
        if option is not None:
            _show_only_metavar(option)
        return option

    command.get_help_option = help_option
    for child in getattr(command, "commands", {}).values():
        _prepare_help(child)


def _show_only_metavar(param: Any) -> None:
    """Show what a value is called and not its Python type; a flag takes none."""
    if param.param_type_name == "argument":
        param.metavar = param.metavar or param.name.upper()
        shown = None
    elif getattr(param, "is_flag", False) or getattr(param, "count", False):
        param.metavar, shown = "", None
    else:
        param.metavar = shown = param.metavar or param.name.upper()
    param.display_type_rich = lambda ctx: shown


def _share(command: Any, options: list[TyperOption]) -> None:
    """Give a command, and a group's commands, the global options it has no own ones for."""
    own = {text for p in command.params for text in p.opts}
    for option in options:
        if option.name != "version" and not own & set(option.opts):
            shared = _copy(option)
            command.params.append(shared)
    for child in getattr(command, "commands", {}).values():
        _share(child, options)


def _copy(option: TyperOption) -> TyperOption:
    import copy

    shared = copy.copy(option)
    # the callback has already changed the state; the command's function knows nothing of it
    shared.expose_value = False
    return shared


def root() -> Any:
    """The whole command line as one click command."""
    app = typer.Typer(
        cls=_Table,
        add_completion=True,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_root)
    command = typer.main.get_command(app)
    _prepare_help(command)
    return command
