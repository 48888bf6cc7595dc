; multiboot 1 entry -> long mode -> C main().  0..1 GiB identity mapped: 2 MiB pages, except 16..80 MiB which uses 4 KiB pages
bits 32
MAGIC equ 0x1BADB002
FLAGS equ 0x3
section .mb align=4
 dd MAGIC, FLAGS, -(MAGIC+FLAGS)
section .text
global start
extern main
start:
 cli
 cld
 mov esp, stack_top
 mov [mbi], ebx
 ; zero tables
 mov edi, pml4
 mov ecx, (tables_end-pml4)/4
 xor eax, eax
 rep stosd
 mov eax, pdpt
 or eax, 3
 mov [pml4], eax
 mov eax, pd
 or eax, 3
 mov [pdpt], eax
 mov ecx, 0
.pd: mov eax, ecx
 shl eax, 21
 or eax, 0x83
 mov [pd+ecx*8], eax
 inc ecx
 cmp ecx, 512
 jb .pd
 ; 4 KiB region: pd[8..39]
 mov ecx, 0
.pt: mov eax, ecx
 shl eax, 12
 add eax, 16<<20
 or eax, 3
 mov [pts+ecx*8], eax
 inc ecx
 cmp ecx, 32*512
 jb .pt
 mov ecx, 0
.pd2: mov eax, ecx
 shl eax, 12
 add eax, pts
 or eax, 3
 mov [pd+8*8+ecx*8], eax
 inc ecx
 cmp ecx, 32
 jb .pd2
 mov eax, cr4
 or eax, 0x620          ; PAE | OSFXSR | OSXMMEXCPT
 mov cr4, eax
 mov eax, pml4
 mov cr3, eax
 mov ecx, 0xC0000080
 rdmsr
 or eax, 0x100
 wrmsr
 mov eax, cr0
 and eax, ~4
 or eax, 0x80010023      ; PG WP NE MP PE
 mov cr0, eax
 lgdt [gdtr]
 jmp 0x08:start64
bits 64
start64:
 mov ax, 0x10
 mov ds, ax
 mov es, ax
 mov ss, ax
 mov fs, ax
 mov gs, ax
 mov rsp, stack_top
 ; TSS descriptor at 0x18
 mov rax, tss
 mov word [gdt+0x18], 0x67
 mov [gdt+0x18+2], ax
 shr rax, 16
 mov [gdt+0x18+4], al
 mov byte [gdt+0x18+5], 0x89
 mov [gdt+0x18+7], ah
 mov ax, 0x18
 ltr ax
 mov edi, [mbi]
 call main
.h: hlt
 jmp .h

global isr_skip_two, isr_return, isr_bad, vmx_exit_entry, vmx_run, svm_run
isr_skip_two:             ; UD2 has two bytes
 add qword [rsp], 2
 iretq
isr_return:
 iretq
isr_bad:
 pop rdi
 mov rsi, [rsp]
 mov rdx, [rsp+8]
extern fault
 call fault
 hlt

; uint64_t vmx_run(uint64_t exits): launch the current VMCS, count exits, advance RIP by the instruction length
vmx_run:
 push rbx
 push rbp
 push r12
 push r13
 push r14
 push r15
 mov r15, rdi
 mov rax, 0x6C14          ; HOST_RSP
 vmwrite rax, rsp
 mov rax, 0x6C16          ; HOST_RIP
 mov rcx, vmx_exit_entry
 vmwrite rax, rcx
 mov [exits_left], r15
 mov rbx, [guest_arg]
 vmlaunch
 jmp vmx_fail
vmx_exit_entry:
 dec qword [exits_left]
 jz vmx_done
 mov rax, 0x4402          ; exit reason
 vmread rcx, rax
 cmp rcx, [expected_exit]
 jne vmx_done
 mov rax, 0x440C          ; instruction length
 vmread rcx, rax
 mov rdx, 0x681E          ; guest RIP
 vmread rax, rdx
 add rax, rcx
 vmwrite rdx, rax
 mov ecx, 0
 vmresume
vmx_fail:
 mov rax, 0x4400
 vmread rcx, rax
 or rcx, 0x100
 shl rcx, 32
 mov rax, rcx
 jmp vmx_out
vmx_done:
 mov rax, 0x4402
 vmread rcx, rax
 mov rax, rcx
vmx_out:
 pop r15
 pop r14
 pop r13
 pop r12
 pop rbp
 pop rbx
 ret

; uint64_t svm_run(uint64_t exits, uint64_t vmcb_pa)
svm_run:
 push rbx
 push rbp
 push r12
 push r13
 push r14
 push r15
 mov r15, rdi
 mov r14, rsi
 mov [exits_left], r15
 mov rbx, [guest_arg]
 mov [svm_vmcb], rsi
.again:
 mov rax, [svm_vmcb]
 vmrun
 dec qword [exits_left]
 jz .done
 mov rax, [svm_vmcb]
 mov rcx, [rax+0x70]      ; EXITCODE
 cmp rcx, [expected_exit]
 jne .done
 add qword [rax+0x578], 2 ; RIP: CPUID and OUT have two bytes
 mov ecx, 0
 jmp .again
.done:
 mov rax, [svm_vmcb]
 mov rax, [rax+0x70]
 jmp vmx_out

global guest_cpuid, guest_io, guest_chase, guest_arg, exits_left, expected_exit
guest_cpuid:
 xor eax, eax
 xor ecx, ecx
 cpuid
 jmp guest_cpuid
guest_io:
 out 0x80, al
 jmp guest_io
guest_chase:              ; rbx = start node; 4 Mi hops then one CPUID exit
 mov rax, rbx
 mov ecx, 4*1024*1024
.l: mov rax, [rax]
 dec ecx
 jnz .l
 mov rbx, rax
 xor eax, eax
 xor ecx, ecx
 cpuid
 jmp guest_chase

section .data
align 16
global gdt, gdtr
gdt: dq 0
 dq 0x00AF9B000000FFFF
 dq 0x00CF93000000FFFF
 dq 0, 0
gdtr: dw 39
 dq gdt
section .bss nobits alloc noexec write
alignb 4096
global tss, guest_stack_top
pml4: resb 4096
pdpt: resb 4096
pd: resb 4096
pts: resb 32*4096
tables_end:
tss: resb 4096
mbi: resq 1
exits_left: resq 1
expected_exit: resq 1
svm_vmcb: resq 1
guest_arg: resq 1
alignb 4096
 resb 65536
stack_top:
 resb 16384
guest_stack_top:
