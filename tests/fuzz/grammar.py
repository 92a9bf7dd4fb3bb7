r"""The rules that stories are drawn from: a story with choices, in the language that stories are printed in.

`{path}` stands for what the rule of that name gives, and `{a|b}` for either. `3x ` before one of several has it drawn
three times as often, and `40% ` in so many of a hundred cases: `{40% kill()}` is nothing in the others. What a rule of
`NAMES` gave once it gives again, up to the end of the operation, event or pattern: see `SCOPES`.
"""

from __future__ import annotations

from syncd.daemon.scheduler import FOLLOW_QUIET_S

NAMES = frozenset({"path", "parent", "directory", "within", "other", "second", "below", "same", "excluded"})
SCOPES = frozenset({"operation", "event", "pattern"})
# The values of the step `settings`, in its order: each is the same until `{other settings}`.
SETTINGS = ("deletions", "archive", "lifetime", "limit", "quiet", "changes")
# A story leaves out a random half of these, but for the first, so that what hides another one is often not there
# (Groce et al., "Swarm Testing", ISSTA 2012).
SWARM = frozenset({"operation", "fault", "rare fault", "incident", "cloud"})

RULES = {
    # -- names and values
    "name": r"3x f|2x g|x.log|-|f~|\udcff|deep/h| ",
    "any directory": r"2x a|b|a/c|a/c/e|é|new\nline|node_modules|build",
    "directory": "{any directory}",
    "parent": "20% |80% {directory}/",
    "path": "{parent}{name}",
    "other": "20% {name}|80% {any directory}/{name}",
    "within": "{directory}/{f|c/g|c/e/f}",
    "second": "20% second|80% {any directory}/second",
    "below": "agents|deep/f|f",
    "excluded": "build/f|x.log|.env|a/x.log|node_modules/f|a/.env",
    "target": "f|../f|a|..|.|/etc/hosts|../outside/f|../../outside|nowhere|a/c",
    "secret": ".env|id_rsa|x.pem",
    "ignore file": "2x .gitignore|2x a/.gitignore|b/.gitignore|a/c/.gitignore|6x a/.syncdignore",
    "ignore rules": r"*.log\n|build/\n|*.log\n!x.log\n|/a/c\n|g\n|f~\n|a/*\n!a/f\n||!g\n|*\n!*/\n!f\n",
    "size": "0|1|3x 8|2x 16|2x 300|3000|9000|30000",
    "content": "60% {text}|40% 0",  # few texts in few sizes, too, so that a change may restore what was there
    "same": "{text}",
    "digit": "0|1|2|3|4|5|6|7",
    "settings": "'{deletions}', '{archive}', {lifetime}, {limit}, {quiet}, '{changes}'",
    "deletions": "2x mirror|keep",
    "archive": "2x auto|full",
    "lifetime": "2x 0|90|600|7200",
    "limit": "2x 0|4000|20000",
    "quiet": "2x 1.0|0.05|4.0",
    "changes": "2x save|hold|overwrite",
    "at?": "35% @{at} ",
    # -- a person's operations
    "operation": """
          6x write('{path}', {size}, {content})
        | 4x write_keep_mtime('{path}', {content})
        | 2x replace('{path}', {size}, {content})
        | 4x revert('{path}')
        | backup('{path}', {size}, {content})
        | append('{path}', {size}, {content})
        | truncate('{path}', {0|4|8|150|1500})
        | 2x overwrite('{path}', {content})
        | backdate('{path}')
        | touch('{path}')
        | recreate_keep_mtime('{path}', {content})
        | replace_keep_mtime('{path}', {content})
        | 2x mmap('{path}', {content})
        | 2x munmap('{path}', {content})
        | link_tmpfile('{directory}', '{other}', {content})
        | rotate('{path}', '{other}')
        | 2x write_unlinked('{path}', {content})
        | close('{path}')
        | 2x rename('{path}', '{other}')
        | 2x rename('{directory}', '{any directory}')
        | rename_over('{path}', '{other}')
        | swap('{path}', '{other}')
        | hard_link('{path}', '{other}')
        | chmod('{{path}|{directory}}', {0o644|0o755|0o600|0o700|0o4755})
        | symlink('{path}', '{target}')
        | symlink_loop('{path}', '{other}')
        | mkdir('{{path}|{directory}}')
        | 3x remove('{2x {path}|{directory}}')
        | move_in('{{path}|{directory}}', {content})
        | move_out('{{path}|{directory}}')
        | exchange_folder('{directory}', {content})
        | 2x recreate_folder('{directory}', {content})
        | change_kind('{{path}|{directory}}', '{file|folder|link|fifo}')
        | link_outside('{{path}|{directory}}')
        | write_secret('{20% |80% {directory}}', '{secret}')
        | write_ignored('{20% |80% {directory}}', {0|1})
        | 2x write_rules('{ignore file}', '{ignore rules}')
        | remove('{ignore file}')
    """,
    "operations": """
        {operation}
        {90% {operations}}
    """,
    "more rounds": """{70% {round}
        {more rounds}}""",
    # -- what else happens
    "ends": "2x kill()|stop()|reload()",
    "fault": """
          upload-url: {503|429 retry-after=3|lost|html|404|reset}
        | upload: {503|expired|forbidden|reset|reset mid-body|lost|corrupt|wrong-hash|no-hash}
        | initialize: {503|500 after|lost|lost x3|cut|reset|html|error no space|400|401}
        | any: {502 x2|reset x5|lost x4|hang 0.01}
    """,
    # Of the requests that only some configurations make.
    "rare fault": """
          3x execute: {503|503 after|2x reset|lost|lost x3|cut|delay 0.01|404|429 retry-after=3}
        | execution-upload-url: {503|lost|404}
        | execution-upload: {503|reset|lost|corrupt}
        | execution-logs: {503|cut|lost x3|404}
        | dump: {503|lost|cut|404}
        | download: {503|cut|corrupt}
        | acquire: {503|lost|cut|429 retry-after=3|404}
        | {upload-url|initialize}: 404
    """,
    "change during a fault": """
        {50% wait_idle()}
        {write('{path}', 8, {text})|replace('{path}', 8, {text})|remove('{path}')}
        wait_failing()
        {30% {ends}}
        {60% revert('{path}')|40% {operation}}
    """,
    "usual event": """
          42% {operation}
        | 24% @{at} {operation}
        | 10% fault('{fault}')
              {60% {change during a fault}}
        | 11% {at?}{3x kill|stop|reload}()
        | 3% {at?}damage('{2x spool|state}', '{flip|cut|drop|folder|foreign|empty}', {digit})
        | 10% {incident}
    """,
    "incident": """
          2x flush()
        | 2x {at?}overflow()
          {at?}{operation}
        | watch_fails()
        | 2x delay_events({1|2|3|4})
        | 2x advance({0.1|0.9|5.0|40.0|700.0})
        | 2x {at?}suspend({30.0|2000.0})
        | set_clock({-4000.0|-3.0|3.0|4000.0})
        | request_sync()
        | {pause|resume}()
        | 2x {at?}move_workspace_away()
        | move_workspace_back()
        | 2x limit_watches({1|2|3|4|4x 1000})
    """,
    # -- changes that are hard to detect
    "undetectable change": """
          {move_in('{directory}', 0)|write('{within}', 8, 0)|mkdir('{directory}')}
          wait_idle()
          {at?}recreate_folder('{directory}', {text})
          {70% wait_idle()}
          {2x write|replace|append}('{within}', 8, {text})
          wait_idle()
        | write('{path}', 16, 0)
          mmap('{path}', {text})
          wait_idle()
          {60% {stamps grow old}}
          munmap('{path}', {text})
          wait_idle()
        | write('{path}', 16, 0)
          wait_idle()
          {60% {stamps grow old}}
          {recreate|replace|write}_keep_mtime('{path}', {text})
          wait_idle()
        | fill_folder('many', 25)
          wait_idle()
          replace_workspace({0|5|25})
          wait_idle()
        | {{rotated}|{at?}link_tmpfile('{parent}', '{path}', {text})}
          {70% wait_idle()}
          {40% write('{path}', 8, {text})}
          write_unlinked('{path}', 1)
          {|close('{path}')|flush()|{operation}}
          wait_idle()
        | symlink_loop('{path}', '{other}')
          wait_idle()
          {remove('{path}')|replace('{path}', 8, 0)}
          wait_idle()
    """,
    # A file that was read again, as something in its folder changed, has a stamp old enough to be trusted.
    "stamps grow old": """
        advance(5.0)
        write('{parent}beside', 8, {text})
        wait_idle()
        advance(5.0)
    """,
    "rotated": """
        write('{path}', 8, 0)
        wait_idle()
        {at?}rotate('{path}', '{60% {parent}rotated|40% {other}}')
    """,
    "links": """
          write('{directory}/first', 8, 0)
          hard_link('{directory}/first', '{second}')
          wait_idle()
          {append|write}('{{directory}/first|{second}}', 8, {text})
          touch('{path}')
          wait_idle()
        | write('{directory}/first', 8, 0)
          symlink('b/link', '../{directory}')
          symlink('{second}', '{directory}/first')
          wait_idle()
          {{link_outside|move_out}('{directory}')|change_kind('{directory}', 'link')|remove('{directory}/first')}
          touch('{path}')
          wait_idle()
    """,
    # -- an agent, and other configurations
    "agent": """
          24x agent_writes('{3x {path}|{directory}/agents}', {text})
        | 9x agent_edits_alike('{path}', {text})
        | 6x agent_chmod('{path}')
        | 3x agent_links('{{path}|{directory}}', '{target}')
        | 6x agent_makes_folder('{path}', {text})
        | 12x agent_removes('{2x {path}|{directory}}')
        | agent_empties()
    """,
    "cloud": """
          push_force()
        | {at?}hold_executions()
        | {at?}release_executions()
        | 2x {at?}late_executions()
        | {at?}sandbox_expires()
        | advance({100.0|500.0})
    """,
    "event of any configuration": """
          60% {usual event}
        | 10% {at?}{agent}
        | 6% {at?}remove('{2x {path}|{directory}}')
        | 11% fault('{rare fault}')
              {60% {change during a fault}}
        | 3% {at?}reconfigure({other settings})
        | 10% {cloud}
    """,
    "pattern of any configuration": """
          36% {undetectable change}
        | 14% {links}
        | 50% {pattern of two sides}
    """,
    "pattern of two sides": "4x {both sides}|{interrupted proof}|{change of kind}",
    # With what may lose the agent's version, or have what was removed here arrive late.
    "both sides": """
        write('{path}', {8|300}, {same})
        wait_idle()
        {60% {at?}{agent}}
        {30% wait_idle()}
        {
        | push_force()
        | advance(700.0)
        | fault('initialize: {lost|500 after|cut}')
          {50% write('{other}', 8, {text})}
        | fault('execute: 404 x9')
          fault('dump: 404 x9')
        | {30% hold_executions()}
          fault('{2x execute: reset|execute: 503|execute: lost|any: reset skip=3}')
        | 2x fault('{rare fault}')
        }
        {80% {change here}}
        {40% wait_failing()}
        {30% {ends}}
        {50% {2x write('{path}', 8, {same})|revert('{path}')|{agent}|write('{other}', 8, {text})|{operation}}}
        {30% {late executions}}
        wait_idle()
        {30% {agent}
             {50% {change here}}
             {50% late_executions()}
             wait_idle()}
    """,
    "change here": """
          4x remove('{2x {path}|{directory}}')
        | write('{path}', 8, {text})
        | chmod('{path}', 0o755)
        | rename('{path}', '{other}')
        | change_kind('{path}', 'folder')
        | touch('{path}')
    """,
    "late executions": "{|@{at} |@1000 }late_executions()",
    # The process ends while it downloads the result of a partial archive, or before.
    "interrupted proof": """
        write('f-stays', 8, 0)
        write('a/g-stays', 8, 0)
        wait_idle()
        at_request('{dump|download}', '{before|after}', {2x kill|stop}())
        write('{path}', 8, {text})
        wait_idle()
        {|touch('{path}')|revert('{path}')|{operation}}
        wait_idle()
    """,
    # A folder becomes a file or a file a folder, maybe with a file of the agent in its place.
    "change of kind": """
        {
          write('{path}/deep/f', 8, 0)
          wait_idle()
          {at?}agent_writes('{path}/{below}', {text})
          {25% fault('{rare fault}')}
          change_kind('{path}', '{2x file|link}')
        | write('{path}', 8, 0)
          wait_idle()
          {at?}agent_writes('{path}', {text})
          {25% fault('{rare fault}')}
          change_kind('{path}', 'folder')
        | {at?}agent_writes('{path}/{below}', {text})
          write('{path}', 8, 0)
        | agent_writes('{path}', {text})
          write('{path}/deep/f', 8, 0)
        }
        {25% wait_failing()
             kill()}
        wait_idle()
        {50% agent_removes('{path}{|/{below}}')}
        {|change_kind('{path}', 'folder')|remove('{path}')|touch('{path}')|flush()}
        wait_idle()
    """,
    # -- the agent's work comes home
    "trouble": "60% ()|40% ('{3x dies|full|full once}', {8x 2|1|0}, {point})",
    "trouble in one phase": "60% ()|40% ('{3x dies|full|full once}', {8x 1|0}, {point})",
    "apply": "apply(({40% '--deletions',}{15% '--include', '{*|build/|*.log|.env}',}), ({some paths}), {trouble})",
    "some paths": "{30% '{{path}|{directory}}',}{15% '{other}',}",
    "resolve": "resolve('{mine|theirs}', ('{{path}|{directory}|}',{30% '{other}',}), {trouble})",
    "known command": """
          6x {apply}
        | 2x {resolve}
        | 3x undo({trouble in one phase})
        | 2x restore({3x 0|1|2}, {trouble in one phase})
        | release({trouble in one phase})
    """,
    "follows": """{60% {one more}
        {follows}}""",
    "one more": "2x wait_idle()|{operation}|{agent}|undo(())|{command}|push_force()|{ends}",
    "edit here": """
          2x append('{path}', 8, {text})
        | write('{path}', {8|300}, {text})
        | chmod('{path}', 0o755)
        | remove('{path}')
    """,
    "edit there": "agent_prepends('{path}', {text})|{agent}",
    "sent": """
        write('{path}', {300|1500}, {text})
        wait_idle()
    """,
    "work there": """
        {sent}
        {edit there}
        {committed}
        {40% {edit here}}
    """,
    "committed": "",
    "event with commands": """
          25% {at?}{command}
        | 20% {agent}
        | 5% move_sandbox({1|2})
        | 50% {event of any configuration}
    """,
    "pattern with commands": """
          3x {both edit}
        | 2x {taken back}
        | 2x {beside a sync}
        | 2x {late archive}
        | 2x {before an end}
        | 2x {followed}
        | {folder with excluded}
        | {left}
        | {excluded there}
        | 3x {pattern of two sides}
    """,
    "both edit": """
        {sent}
        {40% pause()}
        {
          {edit there}
          {70% {edit here}}
        | {edit here}
          {edit there}
        }
        {25% wait_idle()}
        {20% beside_command('{request of a look}', '{before|after}', {{edit there}|{edit here}})}
        {2x {apply}|{command}}
        {50% {resolve}}
        {follows}
        resume()
        {30% {edit there}
             {apply}}
        {follows}
    """,
    # What is known changes on either side before a command answers from it.
    "followed": """
        {sent}
        {edit there}
        {20% @{at} kill()}
        {at?}follow()
        {30% {edit there}}
        {30% {edit here}}
        {30% wait_idle()}
        {30% follow()}
        {30% {kill|reload|request_sync}()}
        {command}
        {follows}
        {50% follow()}
        {follows}
    """,
    "taken back": """
        {work there}
        apply(({30% '--deletions',}), (), ())
        {50% wait_idle()}
        undo({30% ()|70% ('{2x dies|full}', 1, {point})})
        {20% undo(())}
        {20% {edit there}}
        wait_idle()
        {follows}
    """,
    # A command begins at some request of a sync, which may be slow or die.
    "beside a sync": """
        {sent}
        {edit there}
        {40% at_request('initialize', '{before|after}', takes(60.0))}
        at_request('{upload|execute|2x initialize|upload-url|execution-logs}', '{before|after}', {command})
        {
        | fault('initialize: {lost|500 after|503}')
        | at_request('initialize', 'after', {ends})
        | at_request('initialize', 'before', agent_writes('{path}', {text}))
        }
        {60% {edit here}|40% write('{other}', 8, {text})}
        wait_idle()
        {follows}
    """,
    # An archive is unpacked long after its request has failed, with commands between.
    "late archive": """
        {sent}
        {50% {edit there}}
        hold_initialize()
        {edit here}
        wait_failing()
        {50% {edit there}}
        {60% {command}}
        {70% late_initialize()}
        {30% {kill|stop}()}
        {command}
        {follows}
    """,
    "folder with excluded": """
        write_secret('{directory}', '{secret}')
        write('{directory}/f', 8, {text})
        wait_idle()
        agent_removes('{directory}')
        apply(('--deletions',), (), {trouble})
        {50% wait_idle()}
        apply(('--deletions',), (), ())
        {follows}
    """,
    # An acquired sandbox ends by itself after the agent wrote, with what keeps its work from being saved.
    "before an end": """
        {
          reconfigure('{deletions}', '{archive}', 90, 0, 1.0, '{changes}')
          {work there}
          rest(20.0)
        | reconfigure('{deletions}', '{archive}', 600, {0|1}, 1.0, '{changes}')
          {work there}
          rest(530.0)
        }
        {
        | 2x fault('{execute|export-artifacts|execution-logs}: 503')
        | fault('{download: 503 x3|execution-upload: 503 x4|any: 503 x5}')
        | fault('{rare fault}')
        | set_clock({-4000.0|-30.0|30.0})
        | write_noise('{other}', 60000, {text})
        | pause()
        }
        rest({50.0|80.0|100.0})
        resume()
        wait_idle()
        {40% restore(0, ())}
        {follows}
    """,
    "left": """
        {
          {work that is left}
          move_sandbox({1|2})
        | reconfigure('{deletions}', '{archive}', 600, 0, {quiet}, '{changes}')
          {work that is left}
          release(())
          {50% push_force()}
        }
        wait_idle()
        {50% restore(0, ())
             wait_idle()}
        {follows}
    """,
    "work that is left": """
        write('{other}', 8, {text})
        {work there}
        {30% {apply}}
        {30% fault('{rare fault}')}
    """,
    # The agent writes what a rule excludes here, which is taken or not.
    "excluded there": r"""
        write_rules('.gitignore', '*.log\nbuild/\n')
        {30% write('{excluded}', 8, 0)}
        wait_idle()
        agent_writes('{excluded}', {text})
        apply(({60% '--include', '*',}), (), ())
        {60% wait_idle()}
        {follows}
        {30% write_rules('.gitignore', '')}
    """,
    "request of a look": "execution-upload-url|execution-upload|execute|execution-logs|export-artifacts|download",
    # -- commits on both sides
    "commit": "agent_commits('{6x all|tracked|2x amend|2x branch|2x switch|detach|reset|stash}', {text})",
    "branch": "branch('agent/{digit}{digit}', ({10% '{path}',}), {trouble of git})",
    "trouble of git": "55% ()|45% ('{2x dies|full|full once}', 0, {70% {point}|30% '{start of git}'})",
    "start of git": "subprocess.Popen {init|index-pack|fast-import|update-ref}",
    "commits": """
        {edit there}
        {60% agent_commits('all', {text})|40% {commit}}
        {45% {commits}}
    """,
    "sent and followed": f"""
        write('{{path}}', {{8|300}}, {{text}})
        {{30% flush()}}
        {{wait_idle()|rest({FOLLOW_QUIET_S + 1.0})}}
    """,
    "pattern with commits": """
          2x {commits come home}
        | 2x {commits while it follows}
        | {commits that are left}
        | 3x {pattern with commands}
    """,
    "commits come home": """
        {sent and followed}
        {commits}
        {40% {edit there}}
        {40% {edit here}}
        {40% wait_idle()}
        {40% home_commits('{add|commit}')}
        {30% beside_command('{request of a look}', '{before|after}', {{edit there}|{commit}|{edit here}})}
        {branch}
        {follows}
        {40% {commits}
             {branch}}
    """,
    # At some request of a sync or of the repository's program.
    "commits while it follows": """
        {sent and followed}
        {60% {edit there}}
        at_request('{initialize|{request of a look}}', '{before|after}', {2x {commit}|kill()|stop()})
        {20% hold_initialize()|20% hold_executions()|20% fault('{trouble of programs}')}
        {60% {edit here}|40% write('a/beside', 8, {text})}
        {40% flush()}
        {wait_idle()|rest(6.0)|}
        {50% {commits}}
        {20% late_executions()}
        {branch}
        {follows}
    """,
    "trouble of programs": "execute: lost|execute: 503 after|execution-logs: lost x3|execution-logs: 503",
    "commits that are left": """
        {sent and followed}
        {commits}
        {50% {branch}}
        {{left}|{before an end}}
        {60% {branch}}
    """,
}

# The default configuration, and no agent: the checks of such a story are stricter.
DEFAULT = {
    "story": """
        file_times('{fine|coarse}')
        {begin}
        {operations}
        {round}
        {round}
        {round}
        {more rounds}
    """,
    "begin": "{50% wipe_sandboxes()}",
    "round": """
        {15% {pattern}}
        {events}
        {70% wait_idle()}
    """,
    "events": """
        {event}
        {70% {events}}
    """,
    "event": "{usual event}",
    "pattern": "40% {undetectable change}|60% {links}",
}
# Other configurations, which change on the way, and an agent in the sandbox.
CONFIGURED = DEFAULT | {
    "begin": """
        settings({settings})
        {30% wipe_sandboxes()}
    """,
    "round": """
        {50% {pattern}}
        {events}
        {70% wait_idle()}
    """,
    "event": "{event of any configuration}",
    "pattern": "{pattern of any configuration}",
}
# Commands of the agent's side: in the place of many events there are patterns.
WAY_HOME = {
    "story": """
        file_times('{fine|coarse}')
        {begin}
        {operations}
        {round}
        {more rounds}
    """,
    "begin": CONFIGURED["begin"],
    "lifetime": "2x 0|90|600",
    "changes": "8x save|2x hold|overwrite",
    "operations": """
        {operation}
        {80% {operations}}
    """,
    "round": """
        {pattern}
        {events}
        {60% wait_idle()}
    """,
    "more rounds": """{45% {round}
        {more rounds}}""",
    "events": """{55% {event}
        {events}}""",
    "event": "{event with commands}",
    "pattern": "{pattern with commands}",
    "command": "{known command}",
}
# The workspace lies in a git repository, and the agent and a person commit.
REPOSITORY = WAY_HOME | {
    # Sandboxes that lose their repository with each archive are rare: there, nothing is asked.
    "story": """
        file_times('{fine|coarse}')
        {10% settings({settings})
             wipe_sandboxes()}
        {50% write('f', 300, 0)}
        {50% write('{path}', 8, 0)}
        repository('{2x in|above}')
        {operations}
        {round}
        {more rounds}
    """,
    "event": "30% {at?}{commit}|10% home_commits('{add|2x commit}')|60% {event with commands}",
    "pattern": "{pattern with commits}",
    "command": "{known command}|{branch}",
    "committed": "60% {commit}",
}
# One to three sandboxes of one workspace, whose names come first in their agents' steps: see `tests.fuzz.several`.
SEVERAL = {
    "story": """
        begin({2x 0|5|15}, {True|False}, 'main'{80% , 'blue'{50% , 'red-2'}})
        {write}
        {write}
        {write}
        {write}
        {write}
        {write}
        {70% flush()}
        {events}
    """,
    "path": "{any path}",
    "any path": "a|b|c|d/x|d/y|d/e/z|n1|n2",
    "write": "write('{any path}', {16|300|9000}, {text})",
    "box": "3x main|2x blue|red-2",
    "events": """
        {event}
        {40% rest({0.05|0.3})}
        {91% {events}}
    """,
    "event": """
          2x {operation}
        | 3x {agent}
        | 2x at('{box}', '{request}', '{before|after}', {{operation}|2x {agent}|kill()})
        | 2x {other}
    """,
    "operation": """
          3x {write}
        | replace('{path}', {16|300|9000}, {text})
        | remove('{2x {path}|d|d/e}')
        | rename('{path}', '{any path}')
        | swap('{path}', '{any path}')
        | chmod('{path}', {0o644|0o755})
    """,
    "agent": """
          3x agent_writes('{box}', '{path}', {text})
        | agent_edits_alike('{box}', '{path}', {text})
        | agent_{chmod|removes}('{box}', '{path}')
    """,
    "request": "upload-url|2x initialize|execute|execution-logs",
    "fault": """
          any@{box}: {503 x8|cut x4}
        | 2x initialize@{box}: {503 x3|hang 0.5|lost x2|delay 0.6}
        | execute@{box}: {reset x2|failed x2}
        | {execution-logs|upload-url}@{box}: cut x2
        | upload: {reset mid-body x2|expired}
        | download: cut x3
    """,
    "other": """
          {kill|stop|reload}()
        | fault('{fault}')
        | flush()
        | {70% agent_writes('{box}', '{path}', {text})}
          apply('{box}'{33% , '--deletions'})
          {40% undo()}
        | undo()
        | remove_name('{blue|red-2}', '{command|by hand}')
        | add_name('{blue|red-2}', '{same|another}')
    """,
}
