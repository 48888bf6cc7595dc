#!/bin/sh -e
# Builds payload.flat, which is committed. Needs nasm and gcc.
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nasm -f elf64 boot.asm -o "$work/boot.o"
for unit in main loops nested; do
    gcc -m64 -O2 -g0 -Wall -Wextra -ffreestanding -fno-pic -fno-pie -mno-red-zone -mcmodel=small -fno-stack-protector \
        -fcf-protection=none -fno-tree-vectorize -fno-tree-slp-vectorize -c $unit.c -o "$work/$unit.o"
done
ld -m elf_x86_64 -static -no-pie -z noexecstack -z max-page-size=4096 -T link.ld -o "$work/payload.elf" \
    "$work/boot.o" "$work/main.o" "$work/loops.o" "$work/nested.o"
objcopy -O elf32-i386 "$work/payload.elf" payload.flat
