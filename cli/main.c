#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/version.h"

static const struct command_row {
    const char *name;
    assay_command_fn run;
    const char *summary;
} commands[] = {
    {"eval", assay_command_eval, "measure what quantized variants of a model lose against its reference"},
    {"up", assay_command_up, "run a local stack: coordinator, quantizer, evaluator, workers"},
    {"down", assay_command_down, "stop the local stack"},
    {"workers", assay_command_workers, "list the processes of a running stack"},
    {"jobs", assay_command_jobs, "list the jobs of a running stack"},
    {"watch", assay_command_watch, "show how far a job is, then its figures"},
    {"pause", assay_command_pause, "give a job no more workers for now"},
    {"resume", assay_command_resume, "let a paused job go on"},
    {"cancel", assay_command_cancel, "end a job; what was scored so far stays as a partial result"},
    {"retry", assay_command_retry, "start a job again that failed or was cancelled"},
    {"rm", assay_command_rm, "remove a job that is over"},
    {"top", assay_command_top, "watch a running stack: processes, queue, jobs"},
    {"trace", assay_command_trace, "what each process did for a job, as a file for Perfetto"},
    {"cache", assay_command_cache, "show, check and prune the records that a running stack keeps"},
    {"rpc", assay_command_rpc, "call any method of a server, with requests and replies as JSON"},
    {"keygen", assay_command_keygen, "make a pair of keys for workers and users of other hosts"},
    {"quantize", assay_command_quantize, "make the artifact of a model under a scheme"},
    {"dequantize", assay_command_dequantize, "write a quantized checkpoint as plain F32"},
    {"fetch", assay_command_fetch, "obtain a real model: smollm2, minilm"},
    {"import", assay_command_import, "make a checkpoint of a GGUF file"},
    {"bench", assay_command_bench, "measure speed and memory beside the machine's own peak"},
    {"model", assay_command_model, "what a checkpoint is, what it takes, and whether it runs"},
    {"tokenize", assay_command_tokenize, "token ids of a text"},
    {"generate", assay_command_generate, "responses of a model, or of several schemes of it side by side"},
    {"chat", assay_command_chat, "the prompt that a model's chat template makes of a conversation"},
    {"embed", assay_command_embed, "embeddings of texts"},
    {"classify", assay_command_classify, "probabilities of a classifier's labels for texts"},
    {"logits", assay_command_logits, "logits of a model for token ids"},
    {"compare-logits", assay_command_compare_logits, "compare two files of logits"},
};

static void print_help(FILE *out)
{
    fputs("Usage: assay COMMAND [ARGUMENTS]\n"
          "Measures what quantization costs a language model.\n\n",
          out);
    for (size_t i = 0; i < ASSAY_COUNT(commands); i++)
        fprintf(out, "  %-16s %s\n", commands[i].name, commands[i].summary);
    fputs("\n  assay COMMAND --help   options of a command\n"
          "  assay --version\n\n"
          "Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 usage, 4 bad input, 5 internal fault, 6 unavailable,\n"
          "7 out of memory or disk, 8 deadline, 9 permission, 10 cancelled, 11 cancelled with a partial result.\n",
          out);
}

static int unknown_command(const char *name)
{
    const char *names[ASSAY_COUNT(commands)];
    for (size_t i = 0; i < ASSAY_COUNT(commands); i++)
        names[i] = commands[i].name;
    const char *near = assay_say_nearest(name, names, ASSAY_COUNT(names));
    if (near)
        fprintf(stderr, "assay: unknown command '%s'; did you mean '%s'? 'assay --help' lists all\n", name, near);
    else
        fprintf(stderr, "assay: unknown command '%s'; 'assay --help' lists all\n", name);
    return ASSAY_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return ASSAY_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return ASSAY_EXIT_PASS;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("assay " ASSAY_VERSION);
        return ASSAY_EXIT_PASS;
    }
    for (size_t i = 0; i < ASSAY_COUNT(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return unknown_command(argv[1]);
}
