/* python.exe: all of Python is in its DLL, which is told to read the command line. */

#include <stdio.h>
#include <windows.h>

typedef int (*main_function)(int, wchar_t **);

int wmain(int argc, wchar_t **argv)
{
    HMODULE library = LoadLibraryW(L"python311.dll");
    main_function run = library ? (main_function)(void *)GetProcAddress(library, "Py_Main") : NULL;
    if (run == NULL) {
        fwprintf(stderr, L"python311.dll cannot be loaded (error %lu)\n", GetLastError());
        return 101;
    }
    return run(argc, argv);
}
