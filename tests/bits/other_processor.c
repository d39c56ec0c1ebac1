/* Lets a process see another processor: the instruction CPUID is answered with fewer
instruction sets and other caches, so that libraries choose other kernels. Everything
else is this processor: it cannot show a difference in its arithmetic.

    gcc -O1 -shared -fPIC -o other_processor.so tests/bits/other_processor.c
    LD_PRELOAD=$PWD/other_processor.so \
      OTHER_CPU="noavx512 noamx noavxvnni l1=32 l2=512 l3=16384" \
      python -m tests.bits.portable

Linux and an x86-64 processor with CPUID faulting (cpuid_fault in /proc/cpuinfo). The
sizes of the caches are in kB. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif
static uint32_t off7b, off7c, off7d, off7a1; static int l1kb, l2kb, l3kb;
static long prctl_(int op, long v) { return syscall(SYS_arch_prctl, op, v); }
static void handler(int sig, siginfo_t *si, void *uc_) {
  ucontext_t *uc = uc_; greg_t *g = uc->uc_mcontext.gregs;
  uint8_t *ip = (uint8_t *)g[REG_RIP];
  if (!(ip[0] == 0x0f && ip[1] == 0xa2)) { signal(sig, SIG_DFL); return; }
  uint32_t leaf = g[REG_RAX], sub = g[REG_RCX], a, b, c, d;
  prctl_(ARCH_SET_CPUID, 1);
  __cpuid_count(leaf, sub, a, b, c, d);
  prctl_(ARCH_SET_CPUID, 0);
  if (leaf == 7 && sub == 0) { b &= ~off7b; c &= ~off7c; d &= ~off7d; }
  if (leaf == 7 && sub == 1) { a &= ~off7a1; }
  if (leaf == 4) {
    int level = (a >> 5) & 7, type = a & 31;
    int kb = level == 1 && type == 1 ? l1kb : level == 2 ? l2kb : level == 3 ? l3kb : 0;
    if (kb && type) { b = 7u << 22 | 63; c = kb * 1024 / 512 - 1; }
  }
  g[REG_RAX] = a; g[REG_RBX] = b; g[REG_RCX] = c; g[REG_RDX] = d; g[REG_RIP] += 2;
}
__attribute__((constructor(101))) static void begin(void) {
  const char *s = getenv("OTHER_CPU"); if (!s) return;
  if (strstr(s, "noavx512")) {
    off7b |= 1u<<16|1u<<17|1u<<21|1u<<26|1u<<27|1u<<28|1u<<30|1u<<31; // F DQ IFMA PF ER CD BW VL
    off7c |= 1u<<1|1u<<6|1u<<11|1u<<12|1u<<14; // VBMI VBMI2 VNNI BITALG VPOPCNTDQ
    off7d |= 1u<<2|1u<<3|1u<<8|1u<<23;         // 4VNNIW 4FMAPS VP2INTERSECT FP16
    off7a1 |= 1u<<5;                            // AVX512_BF16
  }
  if (strstr(s, "noamx")) off7d |= 1u<<22|1u<<24|1u<<25, off7a1 |= 1u<<21;
  if (strstr(s, "noavxvnni")) off7a1 |= 1u<<4;
  char *p; if ((p = strstr(s, "l1="))) l1kb = atoi(p + 3);
  if ((p = strstr(s, "l2="))) l2kb = atoi(p + 3);
  if ((p = strstr(s, "l3="))) l3kb = atoi(p + 3);
  struct sigaction sa = {0}; sa.sa_sigaction = handler; sa.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGSEGV, &sa, 0);
  if (prctl_(ARCH_SET_CPUID, 0)) { perror("ARCH_SET_CPUID"); _exit(97); }
}
