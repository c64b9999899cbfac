// A program into which nothing can be loaded.

int main(int argc, char**) { return argc + 1; }
