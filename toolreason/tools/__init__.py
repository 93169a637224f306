"""Tools that an agent makes and keeps (UCT, arXiv 2602.01983).

package   a tool: code, tests, signature, where it came from     library   all of them, over LangGraph's BaseStore
gate      what code may not hold, and its signature              trial     its tests, and its calls, in the sandbox
folder    the library as a Python package on disk
"""
