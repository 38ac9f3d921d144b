"""The process in which llama.cpp runs: loads one GGUF file and serves it on a Unix socket until its parent ends.

Started by LlamaCpp as a script, so that it imports nothing of ours: python -P engine.py GGUF SOCKET N_CTX THREADS
OPTIONS, where OPTIONS is JSON: {"rerank": bool, "adapters": [paths], "thinking": true, false or null}.
Says "ready" on standard output once the model is loaded; ends when standard input does. A process of its own
because llama.cpp holds Python's lock while it loads, and aborts on some files: neither may stop the screen.
"""

import json
import os
import shutil
import sys

ERRORS = 1  # llama.cpp's log level


def main(gguf: str, socket: str, n_ctx: int, threads: int, options: dict) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_ctx = n_ctx
    params.n_parallel = 1  # one request at a time: the queue keeps numbers independent of who else asks
    params.hostnames = [socket]  # a name that ends in .sock is a Unix socket: no port is opened
    params.verbosity = ERRORS
    params.warmup = False
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.n_threads_http = 4
    params.cache_ram_mib = 0  # llama.cpp keeps up to 8 GiB of old prompts otherwise
    params.ctx_shift = False  # an over-long chat is an error, never silently cut
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    if all(device["type"] == cpu for device in xllamacpp.get_device_info()):
        params.n_gpu_layers = 0
    if threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    if adapters := options["adapters"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in adapters]
        params.lora_init_without_apply = True  # a request says which it wants
    if options["thinking"] is not None:  # else llama.cpp guesses what the template is told
        params.default_template_kwargs = {"enable_thinking": json.dumps(options["thinking"])}
    if options["rerank"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
        params.n_batch = params.n_ubatch = n_ctx  # an encoder reads a pair whole or not at all
    server = xllamacpp.Server(params)
    print("ready", flush=True)
    sys.stdin.buffer.read()  # until the parent closes it or dies
    shutil.rmtree(os.path.dirname(socket), ignore_errors=True)  # the parent may have been killed
    # the kernel frees everything at once; the server's own end may wait 30 s for a connection
    os._exit(0 if server else 1)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]))
    except RuntimeError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(
            1
        )  # a whole end: llama.cpp logs from a thread, which os._exit would cut off before its reason
