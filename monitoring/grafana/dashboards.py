"""The dashboards: Serving (what a user feels), Capacity (how much room is left), Cluster (what the machines do).

    python3 -B -m monitoring.grafana.dashboards     writes monitoring/grafana/dashboards/*.json

Metrics are those of docs/metrics.md, rules those of monitoring/rules/recording.yml.
"""

import json
import pathlib

from monitoring.grafana.model import Panel, Variable, dashboard

DIRECTORY = pathlib.Path(__file__).parent / "dashboards"

# Of coordinators, of whatever has a model's name, of the instances that were chosen, of all of the job.
COORDINATOR = 'job="$job", instance=~"$instance"'
MODEL = COORDINATOR + ', model_name=~"$model"'
CHOSEN = 'job="$job", instance=~"$instance"'
JOB = 'job="$job"'

RANK = "stage {{stage}} rank {{rank}} ({{worker}})"
JOBS = Variable("job", "Job", "label_values(bellwether_build_info, job)", several=False)
COORDINATORS = Variable("instance", "Coordinator", 'label_values(bellwether_build_info{job="$job", program="coordinator"}, instance)')
INSTANCES = Variable("instance", "Instance", 'label_values(bellwether_build_info{job="$job"}, instance)')
MODELS = Variable("model", "Model", 'label_values(bellwether_model_info{job="$job"}, model_name)')


def rate(metric, where, by):
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(share, histogram, where=MODEL):
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', where, 'le')})"


def quantiles(histogram):
    return tuple((quantile(share, histogram), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def mean(histogram, where=MODEL):
    return f"{rate(histogram + '_sum', where, 'job')} / ({rate(histogram + '_count', where, 'job')} > 0)"


def heat(histogram):
    return ((f"sum by (le) (increase({histogram}_bucket{{{MODEL}}}[$__rate_interval]))", "{{le}}"),)


UP_AND_DOWN = ((1, "yes", "green"), (0, "no", "red"))

SERVING = dashboard("Serving", "What users feel: is there service, how long do they wait, how many are there.",
                    (JOBS, COORDINATORS, MODELS), (
    ("Now", (
        Panel("Service", "Whether a layout is up and requests are taken, of each coordinator. No: see the Cluster dashboard.",
              "bool_yes_no", ((f"bellwether_serving{{{MODEL}}}", "{{model_name}}"),), "stat", 4, 4, words=UP_AND_DOWN),
        Panel("First token, 95 of 100 within", "Time from the arrival of a request to its first token. The objective is 10 s.",
              "s", ((quantile(0.95, "bellwether_time_to_first_token_seconds"), ""),), "stat", 4, 4, warn=(5, 10)),
        Panel("Next token, 95 of 100 within", "Time between a token and the next. People read some 10 tokens a second. The objective is 0.5 s.",
              "s", ((quantile(0.95, "bellwether_inter_token_latency_seconds"), ""),), "stat", 4, 4, warn=(0.2, 0.5)),
        Panel("Tokens generated a second", "Of all requests together.", "tokens/s",
              ((rate("bellwether_generated_tokens_total", MODEL, "job"), ""),), "stat", 4, 4),
        Panel("Running", "Requests that are being answered.", "short",
              ((f"sum by (job) (bellwether_requests_running{{{MODEL}}})", ""),), "stat", 4, 4),
        Panel("Waiting", "Requests that were admitted and wait for their first step.", "short",
              ((f"sum by (job) (bellwether_requests_waiting{{{MODEL}}})", ""),), "stat", 4, 4),
    )),
    ("How long users wait", (
        Panel("Time to first token", "From the arrival of a request to its first token: its place in the queue, and its prompt.",
              "s", quantiles("bellwether_time_to_first_token_seconds"), least=0),
        Panel("Time between tokens", "Between a token of a choice and the next. A high p99 beside a low p50: answers stutter.",
              "s", quantiles("bellwether_inter_token_latency_seconds"), least=0),
        Panel("Time of a whole request", "From arrival to end; long answers take long.", "s",
              quantiles("bellwether_request_duration_seconds"), least=0),
        Panel("Queue time", "From arrival to the first step. It grows when more comes in than the cluster computes.", "s",
              quantiles("bellwether_request_queue_time_seconds"), least=0),
        Panel("Prefill time", "From the first step of a request to its first token; it grows with the length of prompts.", "s",
              quantiles("bellwether_request_prefill_time_seconds"), least=0),
        Panel("Decode time", "From the first token of a request to its end.", "s",
              quantiles("bellwether_request_decode_time_seconds"), least=0),
        Panel("Time per output token", "Mean over a request of the time of a token after the first: the speed that its reader sees.", "s",
              quantiles("bellwether_time_per_output_token_seconds"), least=0),
        Panel("First tokens that are late", "Share that came later than the objective, over a short and a long time. An alert pages "
              "above 14.4 % in both.", "percentunit",
              ((f"instance:bellwether_first_tokens_late:ratio_rate5m{{{MODEL}}}", "5 minutes"),
               (f"instance:bellwether_first_tokens_late:ratio_rate1h{{{MODEL}}}", "1 hour"),
               (f"instance:bellwether_first_tokens_late:ratio_rate6h{{{MODEL}}}", "6 hours")), least=0),
        Panel("Tokens that are late", "Share of tokens that came more than the objective after the one before.", "percentunit",
              ((f"instance:bellwether_tokens_late:ratio_rate5m{{{MODEL}}}", "5 minutes"),
               (f"instance:bellwether_tokens_late:ratio_rate1h{{{MODEL}}}", "1 hour"),
               (f"instance:bellwether_tokens_late:ratio_rate6h{{{MODEL}}}", "6 hours")), least=0),
    )),
    ("What they ask for", (
        Panel("Requests", "Running and waiting. Waiting ones beside few running ones: KV blocks or places for sequences are out.", "short",
              ((f"sum by (job) (bellwether_requests_running{{{MODEL}}})", "running"),
               (f"sum by (job) (bellwether_requests_waiting{{{MODEL}}})", "waiting")), stacked=True, least=0),
        Panel("Requests a second", "Admitted, and ended by reason. unavailable and error are ours; cancelled and deadline the clients'.",
              "reqps", ((rate("bellwether_requests_admitted_total", MODEL, "job"), "admitted"),
                        (rate("bellwether_requests_finished_total", MODEL, "reason"), "{{reason}}")), least=0),
        Panel("Rejected a second", "Requests that ended before they were taken. overloaded: the queue was full.", "reqps",
              ((rate("bellwether_requests_rejected_total", MODEL, "reason"), "{{reason}}"),), least=0),
        Panel("Tokens a second", "Prompt tokens, computed or known, and tokens generated.", "tokens/s",
              ((rate("bellwether_prompt_tokens_total", MODEL, "job"), "prompt"),
               (rate("bellwether_generated_tokens_total", MODEL, "job"), "generated")), least=0),
        Panel("Prompt length", "How many requests had how many prompt tokens.", "short",
              heat("bellwether_request_prompt_tokens"), "heatmap"),
        Panel("Answer length", "How many requests generated how many tokens, over all their choices.", "short",
              heat("bellwether_request_generated_tokens"), "heatmap"),
        Panel("Choices a request", "Mean of n. Each choice is a sequence with KV blocks of its own.", "short",
              ((mean("bellwether_request_choices"), "choices"),), least=0),
        Panel("Requests that fail", "Share of ended requests that ended by our fault (unavailable, error).", "percentunit",
              ((f"instance:bellwether_requests_failed:ratio_rate5m{{{MODEL}}}", "{{model_name}}"),), least=0),
        Panel("Preemptions", "Sequences a second that gave up their KV blocks for others and are computed again: work done twice.",
              "ops", ((rate("bellwether_preemptions_total", MODEL, "job"), "preempted"),), least=0),
        Panel("Prompts that were known", "Share of the tokens of sequences that begin which KV blocks of others held: they are not computed "
              "again. Conversations and common system messages make it high, short and unlike prompts low.", "percentunit",
              ((f'{rate("bellwether_prefix_cache_hits_total", MODEL, "job")} / '
                f'{rate("bellwether_prefix_cache_queries_total", MODEL, "job")}', "known"),), least=0),
        Panel("Interruptions", "Requests a second whose workers were lost, or left: they are computed again, and go on when others serve.",
              "ops", ((rate("bellwether_interruptions_total", MODEL, "job"), "interrupted"),), least=0),
    )),
))

NOW_TOKENS = rate("bellwether_generated_tokens_total", MODEL, "job, instance")
STEPS = rate("bellwether_step_duration_seconds_count", MODEL, "job, instance")


def planned(metric, concurrency):
    return f'sum by (job, instance) ({metric}{{{COORDINATOR}, concurrency="{concurrency}"}})'


def per_hour(metric):
    return f"3600 * sum by (job) ({NOW_TOKENS}) / (sum by (job) ({metric}{{{COORDINATOR}}}) > 0)"


LIMIT = planned("bellwether_plan_limit_tokens_per_second", "one_sequence_per_stage")
# As recording.yml has it, over the time between two points.
PLANNED_STEPS = (
    f"min by (job, instance) (label_replace({rate('bellwether_step_duration_seconds_sum', MODEL, 'job, instance')} "
    f"* {planned('bellwether_plan_tokens_per_second', 'one_sequence')}, \"by\", \"latency\", \"\", \"\") "
    f"or {planned('bellwether_plan_tokens_per_second', 'one_sequence_per_stage')})")
LOAD = f"instance:bellwether_load:ratio{{{MODEL}}}"
MONTH = 30 * 24 * 3600
CAPACITY = dashboard("Capacity", "What the cluster gives, against what it could; how much room is left, and for how long.",
                     (JOBS, COORDINATORS, MODELS), (
    ("Room", (
        Panel("Headroom", "What is free of what runs out first: KV blocks or places for sequences. At 0 new requests wait.",
              "percentunit", ((f"1 - max by (job) (avg_over_time({LOAD}[$__rate_interval]))", ""),), "gauge", 6, 6, least=0, most=1),
        Panel("Full in", "When the load reaches 100 % if it goes on growing as over the time shown; 30 days also stands for later or never.",
              "dtdurations",
              ((f"clamp_max((1 - max by (job) (avg_over_time({LOAD}[$__rate_interval]))) / clamp_min(max by (job) (deriv({LOAD}[$__range])), 1e-9), {MONTH})", ""),),
              "stat", 6, 6),
        Panel("Share of the hardware's limit", "Steps made, to those possible if nothing but reading the weights at the measured bandwidth "
              "took time. 1 is the end of what this hardware can do for decode.", "percentunit",
              ((f"{STEPS} / ({LIMIT} > 0)", ""),), "gauge", 6, 6, least=0, most=1),
        Panel("Share of the plan", "Steps made, to those that the plan predicts for as many under way. Well below 1: something is slower than "
              "it was measured; with long prompts it is below 1 by nature.", "percentunit",
              ((f"{STEPS} / ({PLANNED_STEPS} > 0)", ""),), "gauge", 6, 6, least=0, most=1.5),
        Panel("Load and its limit", "Shares in use of what requests take: at 1, new ones wait; when the queue is full, they are refused.", "percentunit",
              ((f"max by (job) (bellwether_kv_cache_usage_ratio{{{MODEL}}})", "KV blocks"),
               (f"max by (job) (bellwether_sequences_running{{{MODEL}}} / (bellwether_sequences_max{{{MODEL}}} > 0))", "sequences"),
               (f"max by (job) (bellwether_requests_waiting{{{MODEL}}} / (bellwether_requests_waiting_max{{{MODEL}}} > 0))", "queue")),
              width=12, least=0, most=1),
        Panel("Growth of load", "Change of the load's share in a day, as over the time shown. Look at a week or more to plan.", "percentunit",
              ((f"86400 * max by (job) (deriv({LOAD}[$__range]))", "a day"),), width=12),
    )),
    ("Tokens", (
        Panel("Tokens a second, and the ceiling", "Generated now; the ceiling at this batch: the steps that the hardware allows, with as many tokens in "
              "each as now; and the plan, for one sequence a stage. Larger batches lift the ceiling until arithmetic binds.", "tokens/s",
              ((f"sum by (job) ({NOW_TOKENS})", "now"),
               (f"sum by (job) ({LIMIT} * {NOW_TOKENS} / ({STEPS} > 0))", "ceiling at this batch"),
               (f"sum by (job) ({planned('bellwether_plan_tokens_per_second', 'one_sequence_per_stage')})", "plan, one sequence a stage")),
              width=12, least=0),
        Panel("Steps a second, and the plan", "A step computes one token of each decoding sequence, and pieces of prompts.", "ops",
              ((STEPS, "now"),
               (PLANNED_STEPS, "plan, with as many under way"),
               (LIMIT, "hardware's limit")), width=12, least=0),
        Panel("Tokens a step", "What a step computes at the mean, and at most in 95 of 100. Many: the weights are read once for many tokens.", "short",
              ((mean("bellwether_step_tokens"), "mean"), (quantile(0.95, "bellwether_step_tokens"), "p95")), width=12, least=0),
        Panel("KV blocks", "Used and there, of 32 tokens each.", "short",
              ((f"sum by (job) (bellwether_kv_blocks_used{{{MODEL}}})", "used"),
               (f"sum by (job) (bellwether_kv_blocks{{{MODEL}}})", "all")), width=12, least=0),
        Panel("Tokens a core-hour", "Generated tokens for an hour of one CPU thread of the layout: divide a machine's price by it.", "short",
              ((per_hour("bellwether_layout_cores"), "a core-hour"),), width=6, least=0),
        Panel("Tokens a GPU-hour", "Generated tokens for an hour of one card of the layout.", "short",
              ((per_hour("bellwether_layout_gpus"), "a GPU-hour"),), width=6, least=0),
        Panel("CPU time a token", "Seconds of all processes of the job for a generated token.", "s",
              ((f"sum by (job) (rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])) / (sum by (job) ({NOW_TOKENS}) > 0)", "a token"),),
              width=6, least=0),
        Panel("Sequences", "Running and allowed (--sequences-max). A request has one for each choice.", "short",
              ((f"sum by (job) (bellwether_sequences_running{{{MODEL}}})", "running"),
               (f"sum by (job) (bellwether_sequences_max{{{MODEL}}})", "allowed")), width=6, least=0),
    )),
))


def by_rank(metric, extra=""):
    return f"{metric}{{{CHOSEN}{extra}}}"


ALL_TIME = rate("bellwether_worker_seconds_total", CHOSEN, "stage, rank, worker")
CLUSTER = dashboard("Cluster", "What the machines do: the layout, its workers, what they wait for, what goes between them.",
                    (JOBS, INSTANCES, MODELS), (
    ("Layout", (
        Panel("Serving", "Whether a layout is up and requests are taken.", "bool_yes_no",
              ((f'bellwether_serving{{{JOB}, model_name=~"$model"}}', "{{model_name}}"),), "stat", 4, 5, words=UP_AND_DOWN),
        Panel("Workers joined and wanted", "Joined ones beyond those wanted are spare. Fewer: no layout can be made, or one that is short of them "
              "(--workers-min).", "short",
              ((f"bellwether_workers_joined{{{JOB}}}", "joined"), (f"bellwether_workers_wanted{{{JOB}}}", "wanted"),
               (f"bellwether_workers_short{{{JOB}}}", "short")), "stat", 4, 5),
        Panel("Epoch", "Number of the layout in force. It grows with each.", "none",
              ((f"bellwether_epoch{{{JOB}}}", ""),), "stat", 4, 5),
        Panel("Layout in force", "Stages of tensor-parallel ranks with their layers, and what computes them.", "none",
              ((f"bellwether_layout_info{{{JOB}}}", ""),), "table", 12, 5,
              columns=("layout", "stages", "workers", "kernel_level", "quantize", "kv_type")),
        Panel("Ranks", "Who holds what.", "none", ((f"bellwether_rank_info{{{JOB}}}", ""),), "table", 12, 8,
              columns=("stage", "rank", "worker", "host", "device", "kernel_level", "layers")),
        Panel("Builds", "What each process was built from: all should be the same.", "none",
              ((f"bellwether_build_info{{{CHOSEN}}}", ""),), "table", 12, 8, columns=("instance", "program", "build_id")),
    )),
    ("Service", (
        Panel("Workers up", "1 for each that has joined; 0: gone, and not replaced.", "none",
              ((f"bellwether_worker_up{{{JOB}}}", "{{worker}}"),), least=0, most=1),
        Panel("Regroups by cause", "Layouts that ended, a minute. More than one now and then: see the runbook.", "cpm",
              ((f"60 * {rate('bellwether_regroups_total', JOB, 'cause')}", "{{cause}}"),), least=0),
        Panel("Without service", "Share of the time in which no layout was up.", "percentunit",
              ((rate("bellwether_not_serving_seconds_total", JOB, "job"), "without service"),), least=0, most=1),
        Panel("State of workers", "joined: waits for a part; loading; linking: connects to its neighbours; ready; step: computes.", "none",
              ((f"sum by (state) (bellwether_worker_state{{{JOB}}})", "{{state}}"),), stacked=True, least=0),
        Panel("Load progress", "Share of its part that each rank has read; 1 also where it kept its weights.", "percentunit",
              ((f"{by_rank('bellwether_load_read_bytes')} / ({by_rank('bellwether_load_size_bytes')} > 0) "
                f"or 1 + {by_rank('bellwether_load_size_bytes')}", RANK),), least=0, most=1),
        Panel("Heartbeat age", "Since the coordinator last heard from a worker. Some seconds and more: its machine or the network is stuck.", "s",
              ((f"bellwether_worker_heartbeat_age_seconds{{{JOB}}}", "{{worker}}"),), least=0),
    )),
    ("Steps: who computes, who waits", (
        Panel("Share of time by part", "Of all chosen workers' time. Under load, idle is the pipeline's bubble; collective_wait is for the other ranks "
              "of the stage, link_wait for the stage before, weights_wait for the drive that layers are streamed from.", "percentunit",
              ((f"{rate('bellwether_worker_seconds_total', CHOSEN, 'part')} / on () group_left () "
                f"(sum (rate(bellwether_worker_seconds_total{{{CHOSEN}}}[$__rate_interval])) > 0)", "{{part}}"),),
              stacked=True, least=0, most=1),
        Panel("Weights from drives, by rank", "Bytes a second that steps take from the worker's drive; nothing where all weights are in memory.", "binBps",
              ((rate("bellwether_weights_streamed_bytes_total", CHOSEN, "stage, rank, worker"), RANK),), least=0),
        Panel("Drives at work, by rank", "Share of the time with a read of streamed weights under way: all of it under load, where the drive binds.",
              "percentunit", ((rate("bellwether_weights_read_seconds_total", CHOSEN, "stage, rank, worker"), RANK),), least=0, most=1),
        Panel("Steps to the plan", "Time with steps under way over what the plan gives the same steps at least: what is above 1 was not foreseen.",
              "none", ((f"{rate('bellwether_step_busy_seconds_total', JOB, 'job')} "
                        f"/ ({rate('bellwether_step_planned_seconds_total', JOB, 'job')} > 0)", "to the plan"),), least=0),
        Panel("Computing, by rank", "Share of a worker's time in which it computed. The highest is the bottleneck.", "percentunit",
              ((f"{rate('bellwether_worker_seconds_total', CHOSEN + ', part=' + chr(34) + 'compute' + chr(34), 'stage, rank, worker')} "
                f"/ ({ALL_TIME} > 0)", RANK),), least=0, most=1),
        Panel("Bubble, by stage", "Share of a stage's time without work. Under load, with as many sequences as stages, it should be small.", "percentunit",
              ((f"{rate('bellwether_worker_seconds_total', CHOSEN + ', part=' + chr(34) + 'idle' + chr(34), 'stage')} "
                f"/ ({rate('bellwether_worker_seconds_total', CHOSEN, 'stage')} > 0)", "stage {{stage}}"),), least=0, most=1),
        Panel("Waited for, by rank", "Seconds a second that the others have waited for this worker, summed over them. One far above the rest: a straggler.",
              "s", ((rate("bellwether_waited_for_seconds_total", JOB, "stage, rank, worker"), RANK),), least=0),
        Panel("Who waits for whom", "Seconds a second, of the five longest waits.", "s",
              ((f"topk(5, {rate('bellwether_peer_wait_seconds_total', CHOSEN, 'stage, rank, peer_stage, peer_rank')})",
                "{{stage}}.{{rank}} for {{peer_stage}}.{{peer_rank}}"),), "bargauge", least=0),
        Panel("Slowness, by rank", "Time to compute, in units of what the plan gives the worker, to the median of all: above 1.5 under load is an alert.",
              "none", ((f"rank:bellwether_slowness:ratio5m{{{JOB}}}", RANK),), least=0),
        Panel("Step duration", "From the sending of a step to its result. With several stages steps overlap.", "s",
              tuple((quantile(share, "bellwether_step_duration_seconds", f'{JOB}, model_name=~"$model"'), f"p{share * 100:g}")
                    for share in (0.5, 0.95, 0.99)), least=0),
        Panel("Steps under way", "At most as many as stages; fewer: there is not enough to do to fill the pipeline.", "short",
              ((f'sum by (job) (rate(bellwether_step_duration_seconds_sum{{{JOB}}}[$__rate_interval]))', "mean"),
               (f"sum by (job) (bellwether_steps_in_flight{{{JOB}}})", "now")), least=0),
        Panel("Steps, by rank", "Steps a second that a worker has computed: the same for all, or one is stuck.", "ops",
              ((rate("bellwether_worker_steps_total", CHOSEN, "stage, rank, worker"), RANK),), least=0),
        Panel("Reading weights, by rank", "Time to read this worker's weights once, as planned: no step is faster.", "s",
              ((f"bellwether_plan_step_read_seconds{{{JOB}}}", RANK),), "bargauge", least=0),
        Panel("Imbalance of the plan", "Time that the slowest worker reads its weights, over the mean of all: what is above 1 is waited.", "none",
              ((f"bellwether_plan_imbalance_ratio{{{JOB}}}", "imbalance"),), least=0),
    )),
    ("Links and memory", (
        Panel("Sent", "Activations to other workers: within the stage (collective) and to the next (pipeline).", "binBps",
              ((rate("bellwether_link_sent_bytes_total", CHOSEN, "stage, rank, kind"), "{{stage}}.{{rank}} {{kind}}"),), least=0),
        Panel("Received", "Activations from other workers: within the stage (collective) and from the one before (pipeline).", "binBps",
              ((rate("bellwether_link_received_bytes_total", CHOSEN, "stage, rank, kind"), "{{stage}}.{{rank}} {{kind}}"),), least=0),
        Panel("Weights and KV cache", "What each worker holds in memory.", "bytes",
              ((by_rank("bellwether_weights_resident_bytes"), "weights " + RANK),
               (by_rank("bellwether_kv_cache_bytes"), "KV " + RANK)), least=0),
        Panel("Memory of processes", "Of each process, what is in RAM: weights and KV cache for the most part.", "bytes", ((f"process_resident_memory_bytes{{{CHOSEN}}}", "{{instance}}"),), least=0),
        Panel("CPU of processes", "Cores that each keeps busy; waiting threads of a step spin for a moment, so waits are in it too.", "short",
              ((rate("process_cpu_seconds_total", CHOSEN, "instance"), "{{instance}}"),), least=0),
        Panel("File descriptors", "Share in use of those allowed.", "percentunit",
              ((f"process_open_fds{{{CHOSEN}}} / process_max_fds{{{CHOSEN}}}", "{{instance}}"),), least=0, most=1),
        Panel("Up since", "When each process started.", "dateTimeFromNow",
              ((f"1000 * process_start_time_seconds{{{CHOSEN}}}", "{{instance}}"),), "stat", 24, 4),
    )),
))

DASHBOARDS = {"serving": SERVING, "capacity": CAPACITY, "cluster": CLUSTER}


def text_of(board):
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def main():
    DIRECTORY.mkdir(exist_ok=True)
    for name, board in DASHBOARDS.items():
        (DIRECTORY / f"{name}.json").write_text(text_of(board))


if __name__ == "__main__":
    main()
