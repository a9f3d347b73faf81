"""What is rendered: structure, validity for the tools that read it, and that no value can break out of its place."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gapt_jax.errors import UserError
from gapt_jax.launch import render, templates
from gapt_jax.launch.render_gke import jobset
from tests.launch.launching import ALL, GKE, LOCAL, SLURM, TPU_VM

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)


@pytest.fixture(params=ALL, ids=lambda spec: spec.target)
def spec(request):
    return request.param


def test_rendering_is_deterministic_in_any_process(spec):
    program = f"import sys; sys.path[:0] = {[str(ROOT)]!r}\n" + (
        "import json; from gapt_jax.launch import render; from tests.launch import launching\n"
        f"print(json.dumps([render.render(s).files for s in launching.ALL][{ALL.index(spec)}]))"
    )
    for seed in ("1", "2"):
        done = run(sys.executable, "-c", program, env={**os.environ, "PYTHONHASHSEED": seed})
        assert json.loads(done.stdout) == render.render(spec).files, done.stderr


def test_an_ablation_is_rendered_as_a_run_is(spec):
    more = ("--lambdas=0,0.5", "--seeds=6")
    ablation = dataclasses.replace(spec, program="ablate", arguments=more)
    run, grid = render.render(spec), render.render(ablation)
    found = {
        name: text.replace(shlex.join(ablation.command), shlex.join(spec.command)) for name, text in grid.files.items()
    }
    if "jobset.yaml" in found:
        lines = found["jobset.yaml"].replace("- ablate\n", "- run\n").splitlines(keepends=True)
        found["jobset.yaml"] = "".join(line for line in lines if line.strip() not in [f"- {word}" for word in more])
    assert (found, grid.submit) == (run.files, run.submit)


def test_the_readme_has_the_commands(spec):
    rendered = render.render(spec)
    readme = rendered.files["README.md"]
    assert f"    {shlex.join(rendered.submit)}\n" in readme
    assert rendered.delete in readme
    assert f"    {shlex.join(spec.command)}\n" in readme
    assert all(name in rendered.files for name in rendered.submit if name.endswith(".sh"))


def test_rendering_imports_no_jax():
    program = "import sys, gapt_jax.commands.launch, gapt_jax.launch.preflight; sys.exit('jax' in sys.modules)"
    assert run(sys.executable, "-c", program, cwd=ROOT).returncode == 0


def test_scripts_pass_bash_and_shellcheck(spec, tmp_path):
    for name, text in render.render(spec).files.items():
        if name.endswith(".sh"):
            (tmp_path / name).write_text(text)
            assert not run("bash", "-n", tmp_path / name).stderr
            done = run(tool("shellcheck"), "--shell=bash", tmp_path / name)
            assert done.returncode == 0, done.stdout


def test_the_image():
    done = run(tool("hadolint"), ROOT / "launch/docker/Dockerfile")
    assert done.returncode == 0, done.stdout
    done = run(tool("shellcheck"), ROOT / "launch/docker/entrypoint.sh")
    assert done.returncode == 0, done.stdout
    copied = {
        line.split()[1] for line in (ROOT / "launch/docker/Dockerfile").read_text().splitlines() if "COPY" in line
    }
    assert {"gapt_jax", "data_pipeline", "experiments", "launch"} <= copied


def test_the_entrypoint_becomes_the_program():
    """Signals reach the program only if no shell stays in between."""
    process = subprocess.Popen(
        ["bash", ROOT / "launch/docker/entrypoint.sh", sys.executable, "-c", "import os; print(os.getpid())"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert int(process.communicate()[0]) == process.pid


def test_fill_replaces_once():
    assert templates.fill("@A@ @B@ a@b @C@", {"A": "@B@", "B": "$x \\1"}) == "@B@ $x \\1 a@b @C@"
    for name, text in vars(templates).items():
        if name.isupper():
            assert "@" in text


# GKE


def test_the_jobset():
    manifest = yaml.safe_load(render.render(GKE).files["jobset.yaml"])
    assert manifest == jobset(GKE)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "multislice-queue"}
    assert set(manifest["spec"]) == {"failurePolicy", "replicatedJobs", "ttlSecondsAfterFinished"}
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 10
    (slices,) = manifest["spec"]["replicatedJobs"]
    assert (slices["name"], slices["replicas"]) == ("slice", 2)
    job = slices["template"]["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (16, 16, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 120)
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["args"][:3] == ["gapt", "run", "gapt"]
    assert "command" not in container  # the entrypoint of the image stays, which execs
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["JAX_COMPILATION_CACHE_DIR"] == "/mnt/gapt/xla-cache"
    assert env["LIBTPU_INIT_ARGS"] == "--xla_a=1 --xla_b=$$(HOME)"  # which Kubernetes reads as $(HOME), literally


def decide(exit_code: int, disrupted: bool = False) -> str:
    """What Kubernetes and JobSet make of a failed pod (kubernetes.io: pod failure policy; JobSet: failure policy)."""
    manifest = jobset(GKE)
    rules = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    reason = "BackoffLimitExceeded"  # backoffLimit is 0
    for rule in rules:
        if "onPodConditions" in rule and disrupted:
            break
        if "onExitCodes" in rule and exit_code in rule["onExitCodes"]["values"]:
            reason = "PodFailurePolicy"
            break
    (rule,) = manifest["spec"]["failurePolicy"]["rules"]
    return rule["action"] if reason in rule["onJobFailureReasons"] else "RestartJobSet"


def test_which_failures_restart():
    assert {decide(code) for code in (42, 134, 137, 143)} == {"RestartJobSet"}
    assert {decide(code) for code in (1, 2, 3)} == {"FailJobSet"}
    assert decide(1, disrupted=True) == "RestartJobSet"


@pytest.mark.parametrize(
    "changes",
    [{}, {"storage": "nfs://10.0.0.2/share", "spot": False}, {"storage": "pvc:c", "accelerator": "v6e-1", "slices": 1}],
)
def test_the_job_of_a_slice_is_valid_kubernetes(changes, tmp_path):
    spec = dataclasses.replace(GKE, **changes)
    (slices,) = jobset(spec)["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, **slices["template"]}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    done = run(tool("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr
    path.write_text(yaml.safe_dump({**job, "spec": {**job["spec"], "backofLimit": 1}}))
    assert run(tool("kubernetes-validate"), "--strict", path).returncode != 0  # it does look


def test_yamllint(tmp_path):
    path = tmp_path / "jobset.yaml"
    path.write_text(render.render(GKE).files["jobset.yaml"])
    config = "{extends: default, rules: {line-length: disable, document-start: disable, indentation: disable}}"
    done = run(tool("yamllint"), "--strict", "--config-data", config, path)
    assert done.returncode == 0, done.stdout


def test_one_machine_needs_no_pool_of_its_own():
    spec = dataclasses.replace(GKE, accelerator="v5e-4", slices=1)
    assert "annotations" not in jobset(spec)["metadata"]


def test_the_context_is_that_of_the_cluster():
    spec = dataclasses.replace(GKE, cluster="c", project="p", zone="europe-west4")
    rendered = render.render(spec)
    assert rendered.submit == ("kubectl", "--context=gke_p_europe-west4_c", "apply", "--filename=jobset.yaml")
    assert "get-credentials c --location=europe-west4 --project=p" in rendered.files["README.md"]


# Values that try to break out

TRICKY = (
    "; rm -rf ~", "$(touch x)", "`touch x`", "'; touch x; '", '"', "\\", "!!python/object", "a: b", "# c", "%s @NAME@",
    "*", "~", "${HOME}", "&x", "- y", "{{z}}", "@COMMAND@", "λ", "$$", "--on",
)  # fmt: skip
words = st.lists(st.sampled_from(TRICKY) | st.text(max_size=8), min_size=1, max_size=4).map("".join)
RECORD = """\
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
print("0" if "wait" in sys.argv else "")
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Programs that only record their arguments, in front of the real ones."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "record.py").write_text(RECORD)

    def fake(*names):
        for name in names:
            path = folder / name
            path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {folder}/record.py {name} "$@"\n')
            path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))

    def recorded():
        path = tmp_path / "record"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return calls

    return fake, recorded


@pytest.mark.parametrize("target", ["slurm", "tpu-vm", "local"])
def test_no_value_breaks_out_of_a_script(target, fakes, tmp_path):
    fake, recorded = fakes
    fake("srun", "sudo", "mountpoint", "python", "scontrol")
    spec = next(spec for spec in ALL if spec.target == target)
    script = {"slurm": "job.sh", "tpu-vm": "start.sh", "local": "local.sh"}[target]

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(words, words, words)
    def check(setting, value, folder):
        values = {"settings": (f"a={setting}",), "workdir": f"{spec.workdir}/{folder}"}
        if value:  # an ablation is rendered as a run is
            values |= {"program": "ablate", "arguments": (f"--grid={value}",)}
        if target != "local":
            values["env"] = (("A", value),)
        try:
            tricky = dataclasses.replace(spec, **values)
        except UserError:  # refused: as good as quoted
            return
        (tmp_path / "here").mkdir(exist_ok=True)
        done = run("bash", "-c", render.render(tricky).files[script], cwd=tmp_path / "here")
        assert done.returncode == 0, done.stderr
        assert not list((tmp_path / "here").iterdir())
        calls = [call for call in recorded() if "gapt" in call]
        assert len(calls) == 1
        assert calls[0][calls[0].index("gapt") :] == list(tricky.command)
        if target == "tpu-vm":
            assert f"--env=A={value}" in calls[0]

    check()


@settings(max_examples=100, deadline=None)
@given(words, words)
def test_no_value_breaks_out_of_the_manifest(setting, value):
    try:
        ablation = {"program": "ablate", "arguments": (f"--grid={value}",)}
        spec = dataclasses.replace(GKE, settings=(setting,), env=(("A", value),), **ablation)
    except UserError:
        return
    manifest = yaml.safe_load(render.render(spec).files["jobset.yaml"])
    assert manifest == jobset(spec)
    container = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert [word.replace("$$", "$") for word in container["args"]] == list(spec.command)
    assert "$" not in "".join(container["args"]).replace("$$", "")  # nothing left that Kubernetes would expand


# TPU VMs, against a gcloud that only pretends

GCLOUD = """\
import json, os, pathlib, sys, time
state = pathlib.Path(os.environ["STATE"])
know = json.loads(state.read_text())
know["calls"].append(sys.argv[1:])
verb, code = sys.argv[4], 0
if verb == "list":
    print(know["states"].pop(0) if know["states"] else know["state"])
elif verb == "create":
    know["state"] = "ACTIVE"
elif verb == "delete":
    know["state"] = ""
elif "gapt-exit-code" in " ".join(sys.argv):
    print("step 1")
    end = know["ends"].pop(0)
    if end == "hang":
        state.write_text(json.dumps(know))
        time.sleep(5)
        sys.exit(1)
    if end == "lost":
        know["state"] = "SUSPENDED"
        code = 1
    else:
        print("gapt-exit-code", end)
state.write_text(json.dumps(know))
sys.exit(code)
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """``cloud(ends)`` runs launch.sh; returns its exit code and the calls of gcloud."""
    (tmp_path / "gcloud.py").write_text(GCLOUD)
    (tmp_path / "gcloud").write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/gcloud.py "$@"\n')
    (tmp_path / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path / "state"))
    monkeypatch.setenv("POLL_SECONDS", "0")
    for name, text in render.render(TPU_VM).files.items():
        (tmp_path / name).write_text(text)

    def launch(ends, state="", states=(), *arguments):
        know = {"state": state, "states": list(states), "ends": ends, "calls": []}
        (tmp_path / "state").write_text(json.dumps(know))
        done = run("bash", tmp_path / "launch.sh", *arguments)
        calls = json.loads((tmp_path / "state").read_text())["calls"]
        return done.returncode, calls

    return launch


def verbs(calls):
    return [call[3] for call in calls if call[3] != "list"]


def test_tpu_vms_are_created_and_deleted(cloud):
    code, calls = cloud(["0"])
    assert code == 0
    assert verbs(calls) == ["create", "ssh", "ssh", "ssh", "delete"]  # start, follow, docker stop
    create = next(call for call in calls if call[3] == "create")
    assert {"--accelerator-type=v5litepod-64", "--runtime-version=v2-alpha-tpuv5-lite", "--node-id=gapt-a"} <= set(
        create
    )
    assert all({"--project=my-project", "--zone=europe-west4-b"} <= set(call) for call in calls)


def test_tpu_vms_restart_after_a_preemption(cloud):
    code, calls = cloud(["42", "lost", "0"])
    assert code == 0
    run_once = ["ssh", "ssh"]
    assert verbs(calls) == ["create", *run_once, *run_once, "delete", "create", *run_once, "ssh", "delete"]


def test_tpu_vms_restart_only_so_often(cloud):
    code, calls = cloud(["42"] * 9)
    assert code == 42
    assert verbs(calls).count("ssh") == 2 * 3 + 1  # restarts = 2


@pytest.mark.parametrize("code", [1, 2, 3])
def test_tpu_vms_do_not_restart_what_would_fail_again(cloud, code):
    assert cloud([str(code)] * 3)[0] == code


def test_tpu_vms_are_kept_if_asked_or_not_ours(cloud):
    assert "delete" not in verbs(cloud(["0"], "", (), "--keep")[1])
    assert verbs(cloud(["0"], "ACTIVE")[1]) == ["ssh", "ssh"]


def test_tpu_vms_wait_for_capacity_and_forgive_a_failing_list(cloud):
    code, calls = cloud(["0"], "ACTIVE", ["WAITING_FOR_RESOURCES", "UNKNOWN", "PROVISIONING"])
    assert (code, verbs(calls)) == (0, ["ssh", "ssh"])


def test_tpu_vms_whose_loss_looks_like_a_fault_restart(cloud):
    code, calls = cloud(["1", "0"], "ACTIVE", ["ACTIVE", "SUSPENDING"])
    assert (code, verbs(calls)) == (0, ["ssh"] * 4)


def test_tpu_vms_are_deleted_when_the_script_is_stopped(cloud, tmp_path):
    (tmp_path / "state").write_text(json.dumps({"state": "", "states": [], "ends": ["hang"], "calls": []}))
    process = subprocess.Popen(["bash", tmp_path / "launch.sh"])
    began = time.monotonic()
    while '"ends": []' not in (tmp_path / "state").read_text():
        assert time.monotonic() < began + 10
        time.sleep(0.05)
    process.terminate()
    assert process.wait(4) == 143
    assert verbs(json.loads((tmp_path / "state").read_text())["calls"])[-2:] == ["ssh", "delete"]


@pytest.mark.slow
def test_gcloud_knows_the_flags(cloud, tmp_path):
    """The real gcloud parses each command (and runs none): an internal command of it, which works offline."""
    real = shutil.which("gcloud", path=os.environ["PATH"].partition(os.pathsep)[2])
    if real is None:
        pytest.skip("gcloud is not installed")
    _, calls = cloud(["0"])
    for call in {call[3]: call for call in calls}.values():
        plain = [word if "\n" not in word and " " not in word else "--command=x" for word in call]
        environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "config"), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
        done = run(
            real, "meta", "lint-gcloud-commands", "--command-string", f"gcloud {' '.join(plain)}", env=environment
        )
        (verdict,) = json.loads(done.stdout)
        assert verdict["success"], verdict["error_message"]


# SLURM and local


def test_the_batch_script():
    text = render.render(SLURM).files["job.sh"]
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--signal=TERM@120", "--requeue"} <= set(header)
    assert "--partition=gpu" in header
    assert """export XLA_FLAGS='--xla_a=1 --xla_b='"'"'x y'"'"''""" in text


def test_the_local_script():
    text = render.render(LOCAL).files["local.sh"]
    words = shlex.split(text.splitlines()[-1])
    assert words[:4] == ["exec", "python", "-m", "gapt_jax.launch.local"]
    assert words[4:] == render.local_arguments(LOCAL)
    assert words[words.index("--") + 1 :] == ["gapt", "run", "smoke", "--workdir=runs/a b"]
