/* bcryptprimitives.dll, which Wine 8 lacks: random bytes for programs in Rust, such as the inside of cryptography. */

#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG size); /* what <ntsecapi.h> calls RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T size)
{
    return SystemFunction036(buffer, (ULONG)size);
}
