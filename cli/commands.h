/* The commands of the program `assay`: one file each, one row each in main.c. */
#pragma once

/* argv[0] is the command's own name. Returns the process's exit code (common/base/exit_code.h). stdout carries the
 * result, stderr the rest. */
typedef int (*assay_command_fn)(int argc, char **argv);

int assay_command_bench(int argc, char **argv);
int assay_command_cache(int argc, char **argv);
int assay_command_cancel(int argc, char **argv);
int assay_command_chat(int argc, char **argv);
int assay_command_classify(int argc, char **argv);
int assay_command_compare_logits(int argc, char **argv);
int assay_command_dequantize(int argc, char **argv);
int assay_command_down(int argc, char **argv);
int assay_command_embed(int argc, char **argv);
int assay_command_eval(int argc, char **argv);
int assay_command_fetch(int argc, char **argv);
int assay_command_generate(int argc, char **argv);
int assay_command_import(int argc, char **argv);
int assay_command_jobs(int argc, char **argv);
int assay_command_keygen(int argc, char **argv);
int assay_command_logits(int argc, char **argv);
int assay_command_model(int argc, char **argv);
int assay_command_pause(int argc, char **argv);
int assay_command_resume(int argc, char **argv);
int assay_command_retry(int argc, char **argv);
int assay_command_rm(int argc, char **argv);
int assay_command_rpc(int argc, char **argv);
int assay_command_quantize(int argc, char **argv);
int assay_command_tokenize(int argc, char **argv);
int assay_command_top(int argc, char **argv);
int assay_command_trace(int argc, char **argv);
int assay_command_up(int argc, char **argv);
int assay_command_watch(int argc, char **argv);
int assay_command_workers(int argc, char **argv);
