"""Shell, pipes, git, tar, gzip, sort, cp and find as children."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

root = tempfile.mkdtemp()
os.chdir(root)
environment = {**os.environ, "HOME": root, "GIT_CONFIG_NOSYSTEM": "1"}


def run(script: str) -> str:
    return subprocess.run(
        ["sh", "-ec", script], check=True, capture_output=True, text=True, env=environment
    ).stdout


assert run("printf 'b\\na\\n' | sort | head -1") == "a\n"
run("mkdir -p a/b && echo x > a/b/c && cp -a a z && ln a/b/c a/d && find . -type f | wc -l")
run("tar cf - a | gzip | gunzip | tar xf - -C z && rm -r z && ls -la && id && date && stat a")
run("cat a/b/c | tee t1 t2 >/dev/null; (sleep 0.01 & wait); trap : INT; umask 022; test -f t1")
if shutil.which("git"):
    run(
        "git init -q r && cd r && git config user.email a@b && git config user.name n && echo 1 > f"
        " && git add f && git commit -qm one && git checkout -qb two && echo 2 >> f"
        " && git commit -qam two && git log --oneline && git diff HEAD~1 && git gc -q"
        " && cd .. && git clone -q r s"
    )
if shutil.which("cc"):
    run("echo 'int main(void){return 0;}' > p.c && cc -O1 -o p p.c && ./p")
if shutil.which("bash"):
    subprocess.run(["bash", "-c", "diff <(echo a) <(echo a)"], check=True)
shutil.rmtree(root)
