# What the client's guests execute. A guest says what it saw by writing EAX to port 0x500.


.macro report
    mov dx, 0x500
    out dx, eax
.endm

# Port 0x501 gets 0x5a; what comes back from it is reported. Then a word and a double word, of an immediate port too.
io:
    mov dx, 0x501
    mov al, 0x5a
    out dx, al
    xor eax, eax
    in al, dx
    report
    mov eax, 0x1234
    out 0x80, ax
    in eax, 0x84
    report
    jmp halt

# Five bytes out, then five in, which come out again.
string_io:
    cld
    lea rsi, [rip + text]
    mov ecx, 4
    mov dx, 0x502
    rep outsb
    mov edi, 0x9000
    mov ecx, 4
    rep insb
    mov eax, [0x9000]
    report
    mov eax, ecx
    report
    jmp halt
text:
    .ascii "abcd"

# Writes of each size to an address without memory, then reads.
mmio:
    mov ebx, 0xd0000000
    mov dword ptr [rbx], 0x11223344
    mov byte ptr [rbx + 5], 0x55
    mov rax, 0x8877665544332211
    mov [rbx + 8], rax
    mov eax, [rbx + 0x10]
    report
    movzx eax, word ptr [rbx + 0x20]
    report
    # Read, change and write.
    or dword ptr [rbx + 0x30], 1
    jmp halt

cpuid:
    mov eax, 0x40000100
    xor ecx, ecx
    cpuid
    report
    mov eax, ebx
    report
    mov eax, 1
    cpuid
    mov eax, ebx
    shr eax, 24
    report
    jmp halt

# What KVM keeps itself, what the guest's own copy is, what nobody knows.
msr:
    mov ecx, 0x1b
    rdmsr
    report
    mov ecx, 0xc0000102
    mov eax, 0x12345678
    mov edx, 0xffff8000
    wrmsr
    swapgs
    mov ecx, 0xc0000101
    rdmsr
    mov edi, edx
    report
    mov eax, edi
    report
    swapgs
    mov ecx, 0x277
    rdmsr
    report
    mov ecx, 0x12345
    rdmsr
    report
    mov eax, 0x77
    xor edx, edx
    wrmsr
    # Refused: #GP.
    rdmsr
    report
    jmp halt

msr_denied:
    mov ecx, 0x174
    rdmsr
    report
    mov eax, 0x88
    xor edx, edx
    wrmsr
    mov ecx, 0x175
    mov eax, 0x99
    wrmsr
    rdmsr
    report
    jmp halt

hlt:
    mov eax, 1
    report
    hlt
    mov eax, 2
    report
halt:
    hlt
    jmp halt

# Interrupts are off, then on behind one more instruction.
window:
    cli
    mov eax, 1
    report
    xor ecx, ecx
    sti
    inc ecx
    inc ecx
    mov eax, ecx
    report
    jmp halt

# Interrupts are on: without virtual NMIs, that is when KVM takes the handler for done.
nmi:
    sti
    mov eax, 1
    report
    nop
    mov eax, 2
    report
    cli
    jmp halt

# 0x100000 has no translation until the handler gives it one.
page_fault:
    mov eax, [0x100008]
    report
    mov dword ptr [0x100008], 0x7777
    mov eax, [0x100008]
    report
    # Read-only: the handler makes it writable.
    and qword ptr [0x4000 + 8 * 0x100], -3
    invlpg [0x100000]
    mov rax, cr0
    or eax, 0x10000
    mov cr0, rax
    mov dword ptr [0x100008], 0x8888
    mov eax, [0x100008]
    report
    # Another table, in which the address is another page.
    mov eax, 0xa000
    mov cr3, rax
    mov eax, [0x100008]
    report
    mov eax, 0x1000
    mov cr3, rax
    mov eax, [0x100008]
    report
    jmp halt

exceptions:
    ud2
    xor edx, edx
    mov eax, 1
    xor ecx, ecx
    div ecx
    mov eax, 0x1000
    mov ds, eax
    mov rax, 0x800000000000
    mov rax, [rax]
    jmp halt

step:
    nop
    nop
    cpuid
    mov eax, 7
    report
    jmp halt

# Pages 1, 3 and 63 of the slot whose log is kept.
dirty:
    mov dword ptr [0x401000], 1
    mov dword ptr [0x403008], 1
    mov eax, [0x404000]
    mov dword ptr [0x43fffc], 1
    report
    mov dword ptr [0x401000], 1
    report
    jmp halt

# A write to memory that is read-only for the guest goes to the client; a read does not.
read_only:
    mov eax, [0x800000]
    report
    mov dword ptr [0x800004], 0x4444
    mov eax, [0x800004]
    report
    jmp halt

# The local APIC: on, an interrupt to itself, TPR against it, and end of interrupt.
apic:
    mov ebx, 0xfee00000
    mov dword ptr [rbx + 0xf0], 0x1ff
    mov eax, [rbx + 0x30]
    and eax, 0xff
    report
    mov dword ptr [rbx + 0x80], 0x50
    mov dword ptr [rbx + 0x310], 0
    mov dword ptr [rbx + 0x300], 0x44041
    sti
    mov ecx, 50
2:  pause
    dec ecx
    jnz 2b
    # Pending in IRR, held by TPR.
    mov eax, [rbx + 0x220]
    report
    mov dword ptr [rbx + 0x80], 0
    mov ecx, 50
2:  pause
    dec ecx
    jnz 2b
    mov eax, [rbx + 0x220]
    report
    # The same by CR8.
    mov eax, 5
    mov cr8, rax
    mov dword ptr [rbx + 0x300], 0x44041
    mov eax, [rbx + 0x80]
    report
    xor eax, eax
    mov cr8, rax
    nop
    mov eax, 0x1234
    report
    cli
    jmp halt

# A timer that ends HLT.
apic_timer:
    mov ebx, 0xfee00000
    mov dword ptr [rbx + 0xf0], 0x1ff
    mov dword ptr [rbx + 0x3e0], 0xb
    mov dword ptr [rbx + 0x320], 0x42
    mov dword ptr [rbx + 0x380], 100000
    sti
    hlt
    mov eax, 0x43
    report
    # The same while running.
    mov dword ptr [rbx + 0x380], 100000
2:  pause
    cmp dword ptr [0x9f00], 2
    jne 2b
    mov eax, 0x44
    report
    cli
    jmp halt

# A message from the client.
apic_message:
    mov ebx, 0xfee00000
    mov dword ptr [rbx + 0xf0], 0x1ff
    mov eax, 1
    report
    sti
    hlt
    mov eax, 2
    report
    mov ecx, 50
2:  pause
    dec ecx
    jnz 2b
    mov eax, 3
    report
    cli
    jmp halt

x2apic:
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    mov ecx, 0x802
    rdmsr
    report
    mov ecx, 0x83f
    mov eax, 0x45
    xor edx, edx
    wrmsr
    sti
    nop
    nop
    mov eax, 0x46
    report
    mov ecx, 0x830
    mov eax, 0x44045
    wrmsr
    nop
    mov eax, 0x47
    report
    cli
    jmp halt

# Loops that are timed: ECX times, then a report.
loop_cpuid:
    mov esi, ecx
2:  xor eax, eax
    cpuid
    dec esi
    jnz 2b
    report
    jmp halt
loop_io:
    mov dx, 0x501
2:  out dx, al
    dec ecx
    jnz 2b
    report
    jmp halt
loop_mmio:
    mov ebx, 0xd0000000
2:  mov [rbx], eax
    dec ecx
    jnz 2b
    report
    jmp halt
loop_msr:
    mov esi, ecx
    mov ecx, 0x1b
2:  rdmsr
    dec esi
    jnz 2b
    report
    jmp halt
loop_hlt:
2:  hlt
    dec ecx
    jnz 2b
    report
    jmp halt
loop_fault:
    # Pages of guest memory that nobody has touched.
    mov ebx, 0x1000000
2:  mov [rbx], eax
    add ebx, 0x1000
    dec ecx
    jnz 2b
    report
    jmp halt

# No descriptor table for the fault.
shutdown:
    lidt [rip + nothing]
    ud2
nothing:
    .fill 10, 1, 0

# State of vectors across exits.
floating:
    mov rax, cr4
    or eax, 0x600
    mov cr4, rax
    mov eax, 0x40490fdb
    movd xmm7, eax
    pshufd xmm7, xmm7, 0
    fninit
    fld1
    report
    xor eax, eax
    cpuid
    pextrw eax, xmm7, 7
    report
    sub rsp, 8
    fstp qword ptr [rsp]
    mov eax, [rsp + 4]
    report
    add rsp, 8
    jmp halt

# A table of translations is changed under the processor's eyes: 64 pages shown at one address, one after the other.
tables:
    xor esi, esi
    xor edi, edi
2:  lea eax, [rsi + 0x400]
    shl rax, 12
    or eax, 3
    mov [0x4000 + 8 * 0x180], rax
    invlpg [0x180000]
    add edi, [0x180000]
    inc esi
    cmp esi, 64
    jne 2b
    mov eax, edi
    report
    # A large page instead of the table, and back.
    mov rax, [0x3000 + 8 * 3]
    mov qword ptr [0x3000 + 8 * 3], 0x400083
    mov rcx, cr3
    mov cr3, rcx
    mov ebx, 0x600000
    mov ecx, [rbx + 0x5000]
    mov [0x3000 + 8 * 3], rax
    mov rax, cr3
    mov cr3, rax
    mov eax, ecx
    report
    jmp halt

# INIT and start-up to the other processor, whose start is copied to 0x9000, then a wait for its word.
start_other:
    mov ebx, 0xfee00000
    mov dword ptr [rbx + 0xf0], 0x1ff
    mov dword ptr [rbx + 0x310], 0x1000000
    mov dword ptr [rbx + 0x300], 0x4500
    mov dword ptr [rbx + 0x300], 0x4609
2:  pause
    cmp dword ptr [0x9800], 0x600d
    jne 2b
    mov eax, 0x600d
    report
    jmp halt

.balign 16
.code16
# In real mode: a subroutine, an interrupt of its own, segments, I/O, then protected mode.
real:
    jmp real_begin
.org real + 16
    mov eax, 0x16161616
    iret
real_begin:
    xor eax, eax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov word ptr ds:[0x20 * 4], 16
    mov word ptr ds:[0x20 * 4 + 2], cs
    int 0x20
    mov dx, 0x500
    out dx, eax
    pushf
    pop ax
    and eax, 0x2
    call real_call
    mov dx, 0x500
    out dx, eax
    mov ax, 0xb00
    mov es, ax
    mov di, 0
    mov cx, 8
    mov al, 0x21
    rep stosb
    mov eax, es:[4]
    mov dx, 0x500
    out dx, eax
    mov eax, 0x40000100
    cpuid
    mov dx, 0x500
    out dx, eax
    lgdt ds:[0x6800]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long 0x9100
    .word 0x18
real_call:
    inc eax
    ret
# The other processor's: it says that it is there. It takes no interrupt in real mode: without unrestricted guests, KVM has
# the processor deliver virtual ones through a table that is not real mode's.
.balign 16
other_processor:
    cli
    xor eax, eax
    mov ds, ax
    mov dword ptr ds:[0x9800], 0x600d
2:  hlt
    jmp 2b
.code32
.balign 16
other_end:
# Copied to 0x9100.
real_end:
    mov eax, 0x20
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7000
    mov eax, 0x32323232
    push eax
    pop eax
    mov dx, 0x500
    out dx, eax
2:  hlt
    jmp 2b
.code64

# Handlers.
.macro save
    push rax
    push rdx
.endm
.macro restore
    pop rdx
    pop rax
    iretq
.endm
on_divide:
    save
    mov eax, 0xe0000000
    report
    add qword ptr [rsp + 16], 2
    restore
on_nmi:
    save
    mov eax, 0xe0000002
    report
    restore
on_invalid:
    save
    mov eax, 0xe0000006
    report
    add qword ptr [rsp + 16], 2
    restore
# Of MOV DS, EAX and RDMSR (two bytes), and of MOV RAX, [RAX] (three).
on_protection:
    save
    mov eax, [rsp + 16]
    or eax, 0xd0000000
    report
    mov rax, [rsp + 24]
    add qword ptr [rsp + 24], 2
    cmp byte ptr [rax], 0x48
    jne 2f
    inc qword ptr [rsp + 24]
2:  pop rdx
    pop rax
    add rsp, 8
    iretq
# Its address, its error code; the translation is given, or made writable.
on_page_fault:
    save
    mov rax, cr2
    report
    mov eax, [rsp + 16]
    report
    mov qword ptr [0x4000 + 8 * 0x100], 0x101003
    invlpg [0x100000]
    pop rdx
    pop rax
    add rsp, 8
    iretq
on_interrupt:
    save
    mov eax, 0xe0000040
    report
    restore
on_apic:
    save
    mov eax, 0xe0000041
    report
    mov eax, 0xfee00000
    mov dword ptr [rax + 0xb0], 0
    restore
on_timer:
    save
    inc dword ptr [0x9f00]
    mov eax, 0xe0000042
    report
    mov eax, 0xfee00000
    mov dword ptr [rax + 0xb0], 0
    restore
# In x2APIC mode.
on_message:
    push rcx
    save
    mov eax, 0xe0000045
    report
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rax
    pop rcx
    iretq
